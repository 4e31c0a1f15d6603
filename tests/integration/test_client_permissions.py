"""The console's table of what each role may do, beside what the server lets them do."""

import re
from pathlib import Path

from tests.host_stage import Stage, show_id_of, token
from tests.integration.test_host_api_access import BODIES, OF_A_SHOW, path_of, shop, stage

__all__ = ["stage"]  # a fixture

HOST = Path(__file__).parents[2] / "client-demo" / "src" / "host"
TABLE = (HOST / "permissions.ts").read_text("utf-8")
# Endpoints of other desks, which this stage does not serve; their own tests refuse moderators.
ELSEWHERE = {"audit", "list_rehearsals"}
NOT_OF_A_SHOW = {"get_show", "list_shows"}  # `get_show` answers everybody


def operations(name: str) -> set[str]:
    listed = re.search(rf"export const {name} = \[(.*?)\] as const;", TABLE, re.S)
    assert listed is not None
    return set(re.findall(r'"(\w+)"', listed[1]))


def test_operations_when_listed_then_each_is_for_one_kind_and_all_are_there() -> None:
    moderators, hosts = operations("FOR_MODERATORS"), operations("FOR_HOSTS")
    assert not moderators & hosts
    assert moderators | hosts == {e.name for e in OF_A_SHOW} | NOT_OF_A_SHOW | ELSEWHERE
    assert operations("FOR_SHOW_MAKERS") == {"create_show"}


async def test_operations_when_tried_then_the_server_refuses_what_the_console_hides(
    stage: Stage,
) -> None:
    show, ids = await shop(stage)
    moderator = token("mod", "moderator", show_id_of(show))
    open_to_them = set()
    for endpoint in OF_A_SHOW:
        path, body = path_of(endpoint.path, show, ids), BODIES.get(endpoint.name)
        answer = await stage.call(endpoint.method, path, body, token=moderator)
        if answer.status_code != 403:
            open_to_them.add(endpoint.name)
    assert open_to_them == operations("FOR_MODERATORS") - NOT_OF_A_SHOW


async def test_lists_and_new_shows_when_asked_for_then_only_hosts_of_every_show_make_them(
    stage: Stage,
) -> None:
    show, _ = await shop(stage)
    moderator = token("mod", "moderator", show_id_of(show))
    host_of_one = token("ming", show=show_id_of(show))
    assert await stage.refused("GET", "/api/shows", token=moderator) == "forbidden"
    await stage.ok("GET", "/api/shows", token=host_of_one)
    for bound in (moderator, host_of_one):
        body = BODIES["create_show"]
        assert await stage.refused("POST", "/api/shows", body, token=bound) == "forbidden"
    await stage.ok("GET", show, token=moderator)
