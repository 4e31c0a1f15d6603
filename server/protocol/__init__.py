"""The wire: messages, codecs and frames. Pure: no sockets, no clock, no Redis."""
