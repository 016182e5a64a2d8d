"""OpenAI's Python client, as its documentation uses it: `openai_client.py URL`. Prints as `models.mjs` does."""

from __future__ import annotations

import json
import sys
from typing import Any

from openai import OpenAI


def main(url: str) -> None:
    client = OpenAI(api_key="none", base_url=url, max_retries=0)
    try:
        stream: Any = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            extra_query={"final": "[DONE]"},
        )
        for chunk in stream:
            say(text=chunk.choices[0].delta.content)
        say(end="completed")
    except Exception as error:
        say(end="failed", error=str(error))


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
