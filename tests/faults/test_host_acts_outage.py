"""Host acts while Valkey or PostgreSQL is killed or frozen: nothing lost, nothing done twice."""

import os
import signal

import pytest

from server.embedded.postgres import PostgresServer
from server.embedded.valkey import ValkeyServer
from server.errors import LivesaleError
from tests.conftest import ValkeyFactory
from tests.host_stage import open_stage, request_id, until

pytestmark = pytest.mark.faults


async def test_acts_when_valkey_is_killed_then_they_are_finished_after_its_return(
    durable_valkey: ValkeyServer, database_url: str
) -> None:
    async with open_stage(durable_valkey.url, database_url) as stage:
        show = await stage.live_show()
        sku = await stage.sku(show)
        sale = (await stage.sale(show, sku))["sale"]
        durable_valkey.kill()
        lower = {"units": 3, "request_id": request_id()}
        restock = {"units": 5, "request_id": request_id()}
        path = f"{show}/sales/{sale}"
        assert await stage.refused("POST", f"{path}/lower", lower) == "outcome_unknown"
        await stage.ok("POST", f"{path}/restock", restock)
        assert (await stage.ok("POST", f"{path}/price", {"price": 7}))["pending"] is True
        await durable_valkey.start()
        async with stage.worker(show):  # which rebuilds the stock first

            async def lowered() -> bool:
                return (await stage.call("POST", f"{path}/lower", lower)).is_success

            await until(lowered)
            await stage.sweep()
            assert (await stage.ok("POST", f"{path}/restock", restock))["outcome"] == "done"
            state = await stage.state(show)
            assert (state[f"stock:{sale}"]["left"], state[f"sale:{sale}"]["price"]) == (12, 7)
            await stage.ok("POST", f"{path}/stop")
            await stage.until_closed(show, sale)
        assert await stage.allotted(sku) == 0


async def test_lower_when_valkey_is_frozen_then_it_is_taken_once(
    valkey_factory: ValkeyFactory, database_url: str
) -> None:
    server = await valkey_factory()
    async with open_stage(server.url, database_url) as stage:
        show = await stage.live_show()
        sale = (await stage.sale(show, await stage.sku(show)))["sale"]
        body = {"units": 3, "request_id": request_id()}
        os.kill(server.child.pid, signal.SIGSTOP)
        try:
            name = await stage.refused("POST", f"{show}/sales/{sale}/lower", body)
        finally:
            os.kill(server.child.pid, signal.SIGCONT)
        assert name == "outcome_unknown"  # Valkey has the command and runs it now
        await stage.ok("POST", f"{show}/sales/{sale}/lower", body)
        assert (await stage.state(show))[f"stock:{sale}"]["left"] == 7


async def test_acts_when_postgresql_is_killed_then_a_repeat_counts_once(
    redis_url: str, postgres_server: PostgresServer
) -> None:
    async with open_stage(redis_url, postgres_server.url()) as stage:
        show = await stage.live_show()
        sku = await stage.sku(show)
        sale = (await stage.sale(show, sku))["sale"]
        restock = {"units": 5, "request_id": request_id()}
        postgres_server.kill()
        path = f"{show}/sales/{sale}/restock"
        assert await stage.refused("POST", path, restock) == "outcome_unknown"
        assert await stage.refused("GET", show) == "unavailable"
        with pytest.raises(LivesaleError):
            await stage.acts.projector.sweep()
        await postgres_server.start()

        async def answered() -> bool:
            return (await stage.call("POST", path, restock)).is_success

        await until(answered)
        assert await stage.allotted(sku) == 15
        assert (await stage.state(show))[f"stock:{sale}"]["left"] == 15
