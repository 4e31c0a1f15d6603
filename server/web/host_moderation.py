"""Host API: order in the room. Hosts and moderators of the show."""

from server import limits
from server.acts import messages as m
from server.acts import views as v
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW


async def chat_policy(call: Call) -> v.ChatPolicyView:
    return await call.acts.moderation.policy(call.identity, call.show)


async def set_chat_policy(call: Call) -> v.ChatPolicyView:
    return await call.acts.moderation.set_policy(call.identity, call.show, call.body)


async def mute(call: Call) -> v.ChatPolicyView:
    return await call.acts.moderation.mute(call.identity, call.show, call.body)


async def unmute(call: Call) -> v.ChatPolicyView:
    return await call.acts.moderation.unmute(call.identity, call.show, call.body.user)


async def ban(call: Call) -> v.ChatPolicyView:
    return await call.acts.moderation.ban(call.identity, call.show, call.body.user)


async def unban(call: Call) -> v.ChatPolicyView:
    return await call.acts.moderation.unban(call.identity, call.show, call.body.user)


async def kick(call: Call) -> None:
    await call.acts.moderation.kick(call.identity, call.show, call.body.user)


async def delete_line(call: Call) -> None:
    await call.acts.moderation.delete_line(call.identity, call.show, call.body)


ENDPOINTS = (
    Endpoint(
        "GET", f"{SHOW}/chat-policy", "chat_policy", "Slow mode, refused words, mutes and bans",
        chat_policy, v.ChatPolicyView,
    ),
    Endpoint(
        "PUT", f"{SHOW}/chat-policy", "set_chat_policy", "Set slow mode and refused words",
        set_chat_policy, v.ChatPolicyView, body=m.SetChatPolicy,
        body_bytes_max=limits.POLICY_BYTES_MAX,
    ),
    Endpoint(
        "POST", f"{SHOW}/mute", "mute", "No chat for some time", mute, v.ChatPolicyView,
        body=m.Mute,
    ),
    Endpoint(
        "POST", f"{SHOW}/unmute", "unmute", "Let a user chat again", unmute, v.ChatPolicyView,
        body=m.OneUser,
    ),
    Endpoint(
        "POST", f"{SHOW}/ban", "ban", "Remove a user for the rest of the show",
        ban, v.ChatPolicyView, body=m.OneUser,
    ),
    Endpoint(
        "POST", f"{SHOW}/unban", "unban", "Let a banned user come back", unban, v.ChatPolicyView,
        body=m.OneUser,
    ),
    Endpoint(
        "POST", f"{SHOW}/kick", "kick", "Close a user's connections", kick, None,
        body=m.OneUser, status=204,
    ),
    Endpoint(
        "POST", f"{SHOW}/delete-line", "delete_line", "Take back a danmaku line from every page",
        delete_line, None, body=m.OneLine, status=204,
    ),
)  # fmt: skip
