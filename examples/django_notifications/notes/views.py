"""A page with what a user has been told, and telling another."""

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST

from notes.models import Notification


@login_required
def inbox(request):
    return render(request, "inbox.html", {"notes": Notification.objects.filter(user=request.user)})


@require_POST
@login_required
def send(request):
    """Tell everybody in `to`, or nobody if one of them is not there or the text is too long."""
    text = f"{request.user.username}: {request.POST['text']}"
    try:
        with transaction.atomic():
            for name in request.POST.getlist("to"):
                note = Notification(user=get_object_or_404(User, username=name), text=text)
                note.full_clean()
                note.save()
    except ValidationError as error:
        return HttpResponse(error.messages, status=400)
    return HttpResponse(status=204)
