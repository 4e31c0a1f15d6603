"""Host API: takes that could not be booked, and what becomes of their units."""

from server.acts import messages as m
from server.acts import views as v
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW


async def list_dead_letters(call: Call) -> v.DeadLetterList:
    found = await call.acts.dead_letters.list_all(call.identity, call.show, call.query)
    return v.DeadLetterList(found)


async def get_dead_letter(call: Call) -> v.DeadLetterView:
    return await call.acts.dead_letters.show(call.identity, call.show, call.ids["letter"])


async def redrive_dead_letter(call: Call) -> v.DeadLetterView:
    return await call.acts.dead_letters.redrive(call.identity, call.show, call.ids["letter"])


async def give_back_dead_letter(call: Call) -> v.DeadLetterView:
    return await call.acts.dead_letters.give_back(call.identity, call.show, call.ids["letter"])


LETTER = f"{SHOW}/dead-letters/{{letter:int}}"

ENDPOINTS = (
    Endpoint(
        "GET", f"{SHOW}/dead-letters", "list_dead_letters",
        "Takes that could not be booked, newest first", list_dead_letters, v.DeadLetterList,
        query=m.DeadLettersQuery,
    ),
    Endpoint(
        "GET", LETTER, "get_dead_letter", "One of them", get_dead_letter, v.DeadLetterView,
    ),
    Endpoint(
        "POST", f"{LETTER}/redrive", "redrive_dead_letter",
        "Book it at its own place: its claim is confirmed", redrive_dead_letter, v.DeadLetterView,
    ),
    Endpoint(
        "POST", f"{LETTER}/give-back", "give_back_dead_letter",
        "Return its units to the sale: its claim is released", give_back_dead_letter,
        v.DeadLetterView,
    ),
)  # fmt: skip
