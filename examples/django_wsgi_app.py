"""Django under plain WSGI: it publishes straight to the broker, and its users stream from a stand-alone hub, which asks
it about their session. Run both:

python -m examples.django_wsgi_app
ssepool serve --broker sqlite:///events.db --authorize-url http://127.0.0.1:5000/sse-auth # 'ssepool[client]'
curl -c jar localhost:5000/login -d user=ann -d password=red
curl -b jar -N 'localhost:8000/events?topic=users/ann'
curl -b jar localhost:5000/notes -d text=Hello
"""

import os
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from ssepool import Publisher

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.urandom(16).hex(),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
passwords = {"ann": "red", "ben": "blue"}  # stands for Django's users
publisher = Publisher(os.environ.get("BROKER", "sqlite:///events.db"))  # one for all threads


def login(request: HttpRequest) -> HttpResponse:
    user = request.POST.get("user", "")
    if passwords.get(user) != request.POST.get("password", ""):
        return HttpResponse(status=401)
    request.session["user"] = user
    return HttpResponse(status=204)


def note(request: HttpRequest) -> HttpResponse:
    if not (user := request.session.get("user")):
        return HttpResponse(status=401)
    return JsonResponse({"id": publisher.publish(f"users/{user}", {"text": request.POST["text"]})}, status=201)


def grant(request: HttpRequest) -> HttpResponse:  # the hub asks this with the cookies of whoever asks the hub
    if not (user := request.session.get("user")):
        return HttpResponse(status=401)
    return JsonResponse({"subject": user, "subscribe": [f"users/{user}"], "expires_in": 300})


urlpatterns = [path("login", login), path("notes", note), path("sse-auth", grant)]
application = get_wsgi_application()

if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "5000")), application) as server:
        print(f"running on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
