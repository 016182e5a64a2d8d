"""Side by side: this hub and others on one machine, one worker each, the same load (`scripts/bench`)."""
