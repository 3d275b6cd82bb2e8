"""The server that the benchmarks read from: a process of its own, so that its cost is never the client's.

_wire.py    the bytes: frames, chunks and response heads, all built before anybody is timed
_plan.py    what a session id asks for
_server.py  one thread, non-blocking sockets, no framework
_quota.py   the other server: it makes sessions, so many at once, and refuses what goes beyond
__main__.py `python -m benchmarks.source`: prints its port, ends when its standard input does

Imports the standard library only.
"""
