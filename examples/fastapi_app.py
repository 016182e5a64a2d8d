"""Live orders behind the application's own checks, FastAPI. Run:

uvicorn examples.fastapi_app:app --http ssepool.uvicorn:Protocol
curl -N localhost:8000/orders/17/events -H "X-User: ann"
curl localhost:8000/orders/17/status -H "X-User: ann" --json '"shipped"'
"""

import asyncio
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request

from ssepool import Hub

hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
database = asyncio.Semaphore(1)  # stands for a pool of one database connection
owners = {17: "ann", 18: "ben"}  # stands for a table


async def customer(order: int, x_user: Annotated[str, Header()]):
    async with database:
        if owners.get(order) != x_user:
            raise HTTPException(404, f"{x_user} has no order {order}")
        yield x_user


# "function" gives the database connection back before the answer begins: a stream would keep it for its whole life.
Customer = Annotated[str, Depends(customer, scope="function")]


@app.get("/orders/{order}/events")
async def events(request: Request, order: int, user: Customer):
    return hub.response(request, topics=[f"orders/{order}"], user=user)


@app.post("/orders/{order}/status")
async def change(order: int, user: Customer, status: Annotated[str, Body()]):
    return {"id": await hub.publish(f"orders/{order}", {"status": status, "by": user}, type="status")}
