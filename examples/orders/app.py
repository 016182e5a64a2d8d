"""Live orders behind the application's own checks, FastAPI and htmx. Run, and open http://localhost:8000/orders/17 (the
user ann has the password red):

uvicorn examples.orders.app:app --http ssepool.uvicorn:Protocol

What the page does, without it:

curl -u ann:red -N localhost:8000/orders/17/events
curl -u ann:red -X POST -H "HX-Request: true" "localhost:8000/orders/17/status?status=shipped"
"""

import asyncio
import html
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from ssepool import Hub

HERE = Path(__file__).parent
hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
database = asyncio.Semaphore(1)  # stands for a pool of one database connection
owners, passwords = {17: "ann", 18: "ben"}, {"ann": "red", "ben": "blue"}  # stand for tables


async def customer(order: int, login: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]):
    if passwords.get(login.username) != login.password:
        raise HTTPException(401, "wrong user or password", {"WWW-Authenticate": "Basic"})
    async with database:
        if owners.get(order) != login.username:
            raise HTTPException(404, "you have no such order")
        yield login.username


# "function" gives the database connection back before the answer begins: a stream would keep it for its whole life.
Customer = Annotated[str, Depends(customer, scope="function")]


@app.get("/orders/{order}")
async def page(order: int, user: Customer):
    return HTMLResponse((HERE / "page.html").read_text("utf-8").replace("ORDER", str(order)))


@app.get("/style.css")
async def style():
    return FileResponse(HERE.parent / "style.css")


@app.get("/orders/{order}/events")
async def events(request: Request, order: int, user: Customer):
    return hub.response(request, topics=[f"orders/{order}"], user=user)


@app.post("/orders/{order}/status", status_code=204)
async def change(order: int, status: str, user: Customer, hx_request: Annotated[bool, Header()]):
    """`HX-Request` is htmx's: pages of other sites cannot send it, who could have a browser send the password."""
    await hub.publish(f"orders/{order}", f"<li>{html.escape(status)}, says {html.escape(user)}</li>")
