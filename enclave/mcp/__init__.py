"""An MCP server that runs code in Enclave sessions: the command `enclave-mcp`, over stdio. Extra `enclave-sdk[mcp]`.

__main__.py   the command: configuration, signals, the lifetime of everything
_server.py    the protocol: lists the tools, calls them, turns errors into answers
_tools.py     the five tools
_run.py       following one run: what is told while it goes on, and its outcome
_text.py      bounded and printable text, since a workload's output is hostile
_schema.py    arguments and answers, with their JSON schemas
_stdin.py     reading standard input so that it can be cancelled

Each imports only from those below it, and from `enclave`, which imports nothing from here.
"""
