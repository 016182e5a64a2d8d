"""Pages: what pages and probes ask for: the hub's health, its document, the demo and the browser client."""

from __future__ import annotations

from ssepool.http.operations.words import BODY, FOREIGN, NO_ROOM, answers, body, content, json
from ssepool.http.schemas import TEXT, Schema, obj

PAGES: Schema = {
    "/health/live": {
        "get": {
            "operationId": "getLive",
            "summary": "Whether the process lives",
            "responses": answers(200, "It does.", json(obj("status", status={"const": "live"}))),
        }
    },
    "/health/ready": {
        "get": {
            "operationId": "getReady",
            "summary": "Whether clients are taken",
            "responses": answers(
                200,
                "They are.",
                json(obj("status", status={"const": "ready"})),
                _503="The pool is not open yet, is draining, or is closed; or the broker is away.",
            ),
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "getOpenAPI",
            "summary": "This document",
            "responses": answers(200, "The document.", json({"type": "object"})),
        }
    },
    "/dashboard": {
        "get": {
            "operationId": "getDashboard",
            "summary": "The operator's page: the pool live, its connections, resize, drain",
            "responses": answers(200, "The page.", content("text/html", TEXT)),
        }
    },
    "/demo": {
        "get": {
            "operationId": "getDemo",
            "summary": "The demo, a page",
            "responses": answers(200, "The page.", content("text/html", TEXT)),
        }
    },
    "/demo/jobs": {
        "post": {
            "operationId": "startDemoJob",
            "summary": "Start the demo's long job",
            "requestBody": body("DemoJob"),
            "responses": {
                **answers(
                    202,
                    "Started.",
                    json(obj("job", job=TEXT)),
                    _400="The body is not allowed.",
                    _503=f"Too many jobs are running. {NO_ROOM}",
                    _403=FOREIGN,
                    **BODY,
                ),
                **answers(200, "The tab's job that runs already.", json(obj("job", job=TEXT))),
            },
        }
    },
    "/ssepool.js": {
        "get": {
            "operationId": "getClient",
            "summary": "The browser client, an ES module",
            "responses": answers(200, "The module.", content("text/javascript", TEXT)),
        }
    },
}
"""The operations of pages and probes, by path and method."""
