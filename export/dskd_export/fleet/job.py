"""A command on another machine that goes on when the connection drops, and ends when its client is gone for good.

A job is a folder there: `log`, `code` once it has ended, `beat`, `lock`, and `out/` for its results. Its
supervisor, a few lines of shell, holds the lock, and so does all that it starts: as long as the lock is taken
something of the job is alive, and when it is free nothing is, whatever happened in between. The client touches
`beat` at every look; a job whose client has not looked for ten minutes is ended.

Needs on the machine: a POSIX shell, and setsid, flock (util-linux), stat and date (coreutils), which Linux for
Tegra and every server distribution have.
"""

from __future__ import annotations

import codecs
import shlex
from dataclasses import dataclass
from typing import Literal

from dskd_export.errors import EnvironmentProblem
from dskd_export.fleet.address import Address
from dskd_export.fleet.ssh import Ssh

ABANDONED_AFTER_S = 600
"""A job ends itself when nobody has looked at it for so long."""

_MARK = "--dskd-state--"
# What a look brings back of the log at most, so that a job which prints without end cannot fill the memory.
_LOG_BYTES = 1 << 20

_FREE = 'flock -n -s "$job/lock" true'
_STATES: dict[str, Literal["none", "running", "ended", "lost"]] = {
    "none": "none",
    "running": "running",
    "ended": "ended",
    "lost": "lost",
}

# Where everything lies there: bundles/ and jobs/.
ROOT = 'root=${XDG_CACHE_HOME:-"$HOME/.cache"}/dskd-compress\n'

# It leads a process group of its own. The trap does nothing but keep it alive when it ends that group; an
# ignored signal would be ignored by the command too. Whoever only asks for the lock shares it, for a moment.
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
class Look:
    """What was seen of a job.

    Attributes:
        state: `none`: there is no such job; `running`; `ended`; `lost`: it is gone and left no code.
        code: that the command ended with; None unless it has ended.
        log: what the command has said since the last look.
        more: it has said more than one look brings back.
    """

    state: Literal["none", "running", "ended", "lost"]
    code: int | None
    log: str
    more: bool = False


class RemoteJob:
    """One job of one machine, known by its name: whoever asks for the same name meets the same job.

    Args:
        ssh: the machine.
        name: letters, digits and dashes.
        limit_s: after how long without a look it ends itself.
    """

    def __init__(self, ssh: Ssh, name: str, *, limit_s: int = ABANDONED_AFTER_S) -> None:
        if not name.replace("-", "").isalnum():
            raise ValueError(f"{name} is no name of a job")
        self._ssh = ssh
        self._limit_s = limit_s
        self._head = f"{ROOT}job=$root/jobs/{name}\n"
        self._from_start()

    def _from_start(self) -> None:
        """The log is read from its first byte on."""
        self._seen = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def address(self) -> Address:
        """Of the machine."""
        return self._ssh.address

    def folder(self) -> str:
        """Its path there."""
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
            # The lock is taken before this returns: the next look must not find a job that has not begun.
            'for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$job/log" ] && exit 0; sleep 0.2; done\n'
            'echo "the job does not start there" >&2; exit 1\n'
        )

    def look(self) -> Look:
        """Tell the job that somebody waits for it, and see how it stands.

        Raises:
            ConnectionLost: the machine cannot be reached; the job goes on.
        """
        said = self._ssh.read(
            f"{self._head}"
            f'if [ ! -d "$job" ]; then printf "\\n%s none 0 0\\n" {_MARK}; exit 0; fi\n'
            'touch "$job/beat"\n'
            # The state first, the log after: what was said before the end is then never missed.
            f"if ! {_FREE}; then state=running code=0\n"
            'elif [ -e "$job/code" ]; then state=ended code=$(cat "$job/code")\n'
            "else state=lost code=0; fi\n"
            f'size=0; if [ -e "$job/log" ]; then size=$(($(stat -c %s "$job/log") - {self._seen})); fi\n'
            f'take=$size; if [ "$take" -gt {_LOG_BYTES} ]; then take={_LOG_BYTES}; fi\n'
            f'if [ "$take" -gt 0 ]; then tail -c +{self._seen + 1} "$job/log" | head -c "$take"; fi\n'
            f'printf "\\n%s %s %s %s\\n" {_MARK} "$state" "$code" "$size"\n'
        )
        log, _, last = said.rpartition(b"\n" + _MARK.encode())
        words = last.decode("ascii", "replace").split()
        if len(words) != 3 or words[0] not in _STATES or not (words[1] + words[2]).isdigit():
            raise EnvironmentProblem(
                f"{self._ssh.address} does not run a POSIX shell as it should: it said {said[-200:]!r}.",
                "Its start-up files must print nothing for a shell that is not interactive.",
            )
        # What start-up files print comes before the log, which is as long as was said.
        log = log[-min(int(words[2]), _LOG_BYTES) :] if int(words[2]) else b""
        self._seen += len(log)
        return Look(
            _STATES[words[0]],
            int(words[1]) if words[0] == "ended" else None,
            self._decoder.decode(log),
            int(words[2]) > _LOG_BYTES,
        )

    def end(self) -> None:
        """End what is running, all of it, and remove the job's folder.

        Raises:
            ConnectionLost: the machine cannot be reached; the job ends itself after a while.
            RemoteFailed: something of it does not end.
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
        self._from_start()
