"""A notification, which its user gets at once if there is a page open."""

from django.conf import settings
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver

from ssepool.django import publish_on_commit


class Notification(models.Model):
    """What a user is told."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=200)


@receiver(post_save, sender=Notification)
def tell(instance, created, **_):
    if created:
        publish_on_commit(f"users/{instance.user_id}", {"text": instance.text}, type="notification")
