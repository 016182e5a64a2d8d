"""Access: who may do what. Each way in asks the door for a grant."""
