"""A command on another machine that survives a dropped connection, and ends when its client stays away.

A job is a folder there: `log`, `code` once it has ended, `beat`, `lock`, and `out/` for its results. Its
supervisor, a few lines of shell, holds the lock, and so do its child processes: while the lock is taken, some
process of the job is alive, and when it is free none is. The client touches `beat` at every poll; a job that is
not polled for ten minutes is ended.

Needs on the machine: a POSIX shell, and setsid, flock (util-linux), stat and date (coreutils), which Linux for
Tegra and every server distribution have.
"""

from __future__ import annotations

import codecs
import shlex
from dataclasses import dataclass
from typing import Literal, get_args

from dskd_export.errors import EnvironmentProblem
from dskd_export.fleet.address import Address
from dskd_export.fleet.ssh import Ssh

ABANDONED_AFTER_S = 600
"""Time without a poll after which a job ends."""

_MARK = "--dskd-state--"
# Most of the log that a poll fetches, so that a job which prints without end cannot fill the memory.
_LOG_BYTES = 1 << 20

_FREE = 'flock -n -s "$job/lock" true'
State = Literal["none", "running", "ended", "lost"]
_STATES: dict[str, State] = {state: state for state in get_args(State)}

# The folder of bundles/ and jobs/ there.
ROOT = 'root=${XDG_CACHE_HOME:-"$HOME/.cache"}/dskd-compress\n'

# It leads its own process group. The trap does nothing but keep it alive when it ends that group; an
# ignored signal would be ignored by the command too. A client that tests the lock shares it for a moment.
_SUPERVISOR = """
cd "$job" || exit 1
exec 9>lock
flock -w 5 9 || exit 0
trap : HUP TERM
sh -c "$command" </dev/null >log 2>&1 &
child=$!
while kill -0 "$child" 2>/dev/null; do
  sleep 0.5
  if [ -e stop ] || [ $(($(date +%s) - $(stat -c %Y beat))) -gt "$limit" ]; then
    kill -s TERM -- -$$
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$child" 2>/dev/null || break; sleep 0.5; done
    kill -s KILL -- -$$
  fi
done
wait "$child"
echo $? >code.new && mv code.new code
"""


@dataclass(frozen=True)
class JobStatus:
    """Status of a job.

    Attributes:
        state: `none`: there is no such job; `running`; `ended`; `lost`: it is gone and left no exit code.
        code: exit code of the command; None unless it has ended.
        log: output of the command since the last poll.
        more: there is more output than one poll fetches.
    """

    state: State
    code: int | None
    log: str
    more: bool = False


class RemoteJob:
    """One job of one machine. The same name is the same job, for every client.

    Args:
        ssh: the machine.
        name: letters, digits and dashes.
        limit_s: time without a poll after which it ends.
    """

    def __init__(self, ssh: Ssh, name: str, *, limit_s: int = ABANDONED_AFTER_S) -> None:
        if not name.replace("-", "").isalnum():
            raise ValueError(f"{name} is no name of a job")
        self._ssh = ssh
        self._limit_s = limit_s
        self._head = f"{ROOT}job=$root/jobs/{name}\n"
        self._rewind()

    def _rewind(self) -> None:
        """Read the log from its first byte again."""
        self._seen = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def address(self) -> Address:
        """Of the machine."""
        return self._ssh.address

    def folder(self) -> str:
        """Path of the job there."""
        return self._ssh.run(f'{self._head}printf %s "$job"')

    def start(self, command: str) -> None:
        """Start a command, unless this job is running or has ended already.

        Args:
            command: for the shell there; `@out@` stands for the folder of the results.

        Raises:
            ConnectionLost: the machine cannot be reached.
            RemoteFailed: the folder cannot be made there.
        """
        line = command.replace("@out@", '"$out"')
        self._ssh.run(
            f"{self._head}set -e\n"
            "for tool in setsid flock stat; do\n"
            '  command -v "$tool" >/dev/null || { echo "$tool is not installed there" >&2; exit 1; }\n'
            "done\n"
            'umask 077; mkdir -p "$job/out"; touch "$job/beat"\n'
            f'if [ -e "$job/code" ] || ! {_FREE}; then exit 0; fi\n'
            'rm -f "$job/log" "$job/stop"\n'
            f'export job out="$job/out" limit={self._limit_s} command={shlex.quote(line)}\n'
            f"setsid sh -c {shlex.quote(_SUPERVISOR)} </dev/null >/dev/null 2>&1 &\n"
            # The lock is taken before this returns: the next poll must find a job that has begun.
            'for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$job/log" ] && exit 0; sleep 0.2; done\n'
            'echo "the job does not start there" >&2; exit 1\n'
        )

    def poll(self) -> JobStatus:
        """Keep the job alive and read its status.

        Raises:
            ConnectionLost: the machine cannot be reached; the job continues.
        """
        answer = self._ssh.read(
            f"{self._head}"
            f'if [ ! -d "$job" ]; then printf "\\n%s none 0 0\\n" {_MARK}; exit 0; fi\n'
            'touch "$job/beat"\n'
            # The state first, the log after: output before the end is then never missed.
            f"if ! {_FREE}; then state=running code=0\n"
            'elif [ -e "$job/code" ]; then state=ended code=$(cat "$job/code")\n'
            "else state=lost code=0; fi\n"
            f'size=0; if [ -e "$job/log" ]; then size=$(($(stat -c %s "$job/log") - {self._seen})); fi\n'
            f'take=$size; if [ "$take" -gt {_LOG_BYTES} ]; then take={_LOG_BYTES}; fi\n'
            f'if [ "$take" -gt 0 ]; then tail -c +{self._seen + 1} "$job/log" | head -c "$take"; fi\n'
            f'printf "\\n%s %s %s %s\\n" {_MARK} "$state" "$code" "$size"\n'
        )
        log, _, last = answer.rpartition(b"\n" + _MARK.encode())
        words = last.decode("ascii", "replace").split()
        if len(words) != 3 or words[0] not in _STATES or not (words[1] + words[2]).isdigit():
            raise EnvironmentProblem(
                f"{self._ssh.address} does not run a POSIX shell: it answered {answer[-200:]!r}.",
                "Its start-up files must print nothing for a shell that is not interactive.",
            )
        # Output of start-up files comes before the log, whose length is known.
        log = log[-min(int(words[2]), _LOG_BYTES) :] if int(words[2]) else b""
        self._seen += len(log)
        return JobStatus(
            _STATES[words[0]],
            int(words[1]) if words[0] == "ended" else None,
            self._decoder.decode(log),
            int(words[2]) > _LOG_BYTES,
        )

    def end(self) -> None:
        """End all processes of the job and remove its folder.

        Raises:
            ConnectionLost: the machine cannot be reached; the job ends after a while.
            RemoteFailed: a process of it does not end.
        """
        self._ssh.run(
            f"{self._head}"
            '[ -d "$job" ] || exit 0\n'
            # The supervisor sees it, and ends everything, itself last.
            'touch "$job/stop"\n'
            f"i=0; while ! {_FREE}; do\n"
            '  i=$((i + 1)); [ "$i" -le 100 ] || { echo "a process of the job does not end" >&2; exit 1; }\n'
            "  sleep 0.2\n"
            "done\n"
            'rm -rf "$job"\n'
        )
        self._rewind()
