"""An MCP server that runs code in Enclave sessions: the command `enclave-mcp`, over stdio. Extra `enclave-sdk[mcp]`.

__main__.py   the command: configuration, signals, and how long everything lives
_server.py    the protocol: lists the tools, calls them, and turns errors into answers
_tools.py     the five tools
_run.py       one run: what the host is told while it goes on, and its outcome
_bounded.py   what workloads and servers say, cut to bounds
_schema.py    arguments and answers, with their JSON schemas
_stdio.py     standard input and output that can be cancelled

A module imports only from those below it, and from `enclave`, which imports nothing from here.
"""
