"""Where everything is."""

from django.contrib.auth.views import LoginView
from django.urls import path
from notes.views import inbox, send

from ssepool.django import events


def own(request):
    return [f"users/{request.user.pk}"] if request.user.is_authenticated else None


urlpatterns = [
    path("", inbox),
    path("notes", send),
    path("login", LoginView.as_view(template_name="login.html")),
    path("events/", events(topics=own)),
]
