"""Settings. The database, the hub's settings and the name of a test come from the environment."""

from __future__ import annotations

import json
import os

SECRET_KEY = "of a test"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "django_project.urls"
ASGI_APPLICATION = "django_project.asgi.application"
WSGI_APPLICATION = "django_project.wsgi.application"
INSTALLED_APPS = [
    *(["daphne"] if os.environ.get("WITH_DAPHNE") else []),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "ssepool.django",
]
MIDDLEWARE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "ssepool.django.middleware.RequestErrors",
    "django_project.middleware.Sync",
    "django_project.middleware.either_way",
    "django.middleware.cache.FetchFromCacheMiddleware",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SESSION_SAVE_EVERY_REQUEST = True
DATABASES = {
    # The worst case: a connection is kept for as long as its thread lives.
    "default": {"CONN_MAX_AGE": None, **json.loads(os.environ["DATABASE"])}
}
SSEPOOL = json.loads(os.environ.get("SSEPOOL", "{}"))
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
