"""An echo server on rawuring, and its twin on epoll: `python -m echo PORT`.

`connection.py` is what both share about one peer, `service.py` what both share about the whole server.
"""
