"""A PostgreSQL server of one's own: a fresh cluster on a Unix socket in a temporary folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from gateway.types.secret import Secret
from tests.servers import missing, require


class PostgresServer:
    """`with PostgresServer() as server:` starts one and removes it. It runs as an ordinary user, as it insists on."""

    def __init__(self) -> None:
        self._initdb = require("initdb")
        self._pg_ctl = require("pg_ctl")
        self._folder = Path()
        self._databases = 0

    def __enter__(self) -> Self:
        # Short: the path of a Unix socket has room for about a hundred bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="gw-pg-"))
        if os.geteuid() == 0:
            user = _ordinary_user()
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._run(self._initdb, "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._pg_ctl, "-D", str(self.data), "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self._folder / "data"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        log = self._folder / "log"
        self._run(self._pg_ctl, "-D", str(self.data), "-l", str(log), "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop the server at once; connections break."""
        self._run(self._pg_ctl, "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and to each of its processes (SIGSTOP freezes it)."""
        postmaster = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in (*map(int, children), postmaster):
            os.kill(process, number)

    def conninfo(self, database: str = "postgres") -> Secret:
        """How to connect."""
        return Secret(f"host={self._folder} user=postgres dbname={database}")

    def new_database(self) -> Secret:
        """An empty database, and how to connect to it."""
        self._databases += 1
        name = f"d{self._databases}"
        # Four times as fast as the default strategy, which writes each page to the log.
        self._execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.conninfo(name)

    def drop_databases(self) -> None:
        """Drop what `new_database` made: each is 300 files, and there is one for each of a hundred tests."""
        while self._databases:
            self._execute(f"DROP DATABASE d{self._databases} WITH (FORCE)")
            self._databases -= 1

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.conninfo().reveal(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _run(self, *command: str, check: bool = True) -> None:
        user = _ordinary_user() if os.geteuid() == 0 else None
        subprocess.run(
            command,
            check=check,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
        )


def _ordinary_user() -> pwd.struct_passwd:
    for user in pwd.getpwall():
        if user.pw_name in {"postgres", "nobody"}:
            return user
    return missing("PostgreSQL refuses to run as root, and there is no other user")
