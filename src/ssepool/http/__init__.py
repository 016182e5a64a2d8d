"""The hub over HTTP: one file for each subject. Those with endpoints have a function `routes`; `app.py` joins them."""
