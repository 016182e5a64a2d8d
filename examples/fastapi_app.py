"""Live orders behind the application's own checks, FastAPI. Run:

uvicorn examples.fastapi_app:app --http ssepool.uvicorn:Protocol
curl -u ann:red -N localhost:8000/orders/17/events
curl -u ann:red localhost:8000/orders/17/status --json '"shipped"'
"""

import asyncio
from typing import Annotated

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from ssepool import Hub

hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
database = asyncio.Semaphore(1)  # stands for a pool of one database connection
owners, passwords = {17: "ann", 18: "ben"}, {"ann": "red", "ben": "blue"}  # stand for tables


async def customer(order: int, login: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]):
    async with database:
        if passwords.get(login.username) != login.password or owners.get(order) != login.username:
            raise HTTPException(404, "you have no such order")
        yield login.username


# "function" gives the database connection back before the answer begins: a stream would keep it for its whole life.
Customer = Annotated[str, Depends(customer, scope="function")]


@app.get("/orders/{order}/events")
async def events(request: Request, order: int, user: Customer):
    return hub.response(request, topics=[f"orders/{order}"], user=user)


@app.post("/orders/{order}/status")
async def change(order: int, user: Customer, status: Annotated[str, Body()]):
    return {"id": await hub.publish(f"orders/{order}", {"status": status, "by": user}, type="status")}
