"""Users who log in to a Flask application stream from a stand-alone hub beside it, with the same cookie. Run both:

flask --app examples.flask_app run
ssepool serve --authorize-url http://127.0.0.1:5000/sse-auth     # pip install 'ssepool[client]'
curl -c jar localhost:5000/login -d name=ann
curl -b jar -N 'localhost:8000/events?topic=users/ann'           # ends with the next line
curl -b jar -X POST localhost:5000/logout
"""

import os
import secrets

from flask import Flask, abort, request, session

from ssepool.client import Client

app = Flask(__name__)
app.secret_key = secrets.token_bytes()
hub = Client(os.environ.get("HUB", "unix:/run/ssepool/ssepool-8000.sock"))  # `ssepool serve` prints where it is
sessions = {}  # stands for a table: a cookie that was stolen must not outlive logging out


@app.post("/login")
def login():
    session["id"] = secrets.token_urlsafe()
    sessions[session["id"]] = request.form["name"]  # after a look at the password
    return "welcome\n"


@app.post("/logout")
def logout():
    if (id := session.pop("id", None)) is not None:
        sessions.pop(id, None)
        hub.revoke(token_id=id)  # ends its streams
    return "bye\n"


@app.get("/sse-auth")
def grant():  # the hub asks this with the cookies of whoever asks the hub, and again when the grant has run out
    user = sessions.get(session.get("id"))
    if user is None:
        abort(401)
    return {"subject": user, "subscribe": [f"users/{user}"], "publish": ["chat"], "token_id": session["id"]}
