"""What may be left on a disk when the power goes: images made from a program's recorded system calls.

The model is the strict reading of POSIX. A write is on disk when a later fsync or fdatasync of its file has returned; a
name when a later fsync of its folder has. Anything else may be there, be missing or be torn: a write in part, a name
with the file's old content. Only the entries of one folder keep their order, as journalling file systems keep it.
What the program told the world, an HTTP answer or a printed line, is an event among the others.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,pwrite64,pwritev,write,writev,sendto,sendmsg,lseek,ftruncate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,unlink,unlinkat,mkdir,mkdirat,copy_file_range,sendfile"
)
SECTOR = 512
_CALL = re.compile(r"^(\d+)\s+(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))$", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_NAME_OF_FD = re.compile(r"^(\d+|AT_FDCWD)(?:<([^>]*)>)?")
_ANSWER = re.compile(rb"HTTP/1\.1 \d{3}.*?\r\nx-request-id: ([^\r]+)\r\n", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Event:
    """A call that succeeded, or what was told. `kind`: write, truncate, sync, make, move, link, drop, told."""

    kind: str
    path: str = ""
    offset: int = 0
    data: bytes = b""
    to: str = ""


class Inode:
    """A file's bytes: those on disk, those that programs see, and what lies between."""

    def __init__(self, content: bytes = b"", *, folder: bool = False) -> None:
        self.folder = folder
        self.disk = bytearray(content)
        self.live = bytearray(content)
        self.pending: list[Event] = []

    def change(self, event: Event) -> None:
        self.pending.append(event)
        _put(self.live, event)

    def sync(self) -> None:
        for event in self.pending:
            _put(self.disk, event)
        self.pending.clear()


def _put(content: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del content[event.offset :]
        content.extend(bytes(event.offset - len(content)))
        return
    content.extend(bytes(max(0, event.offset - len(content))))
    content[event.offset : event.offset + len(event.data)] = event.data


@dataclass
class Disk:
    """One folder with all below it, as events change it."""

    root: str
    live: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    pending: dict[str, list[Event]] = field(default_factory=dict)
    """Changes of names that no fsync has reached, by folder."""
    inodes: dict[int, Inode] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> "Disk":
        """The folder as it is, all of it on disk."""
        disk = cls(str(root))
        disk.live[disk.root] = Inode(folder=True)
        for path in sorted(root.rglob("*")):
            inode = Inode(folder=True) if path.is_dir() else Inode(path.read_bytes())
            disk.live[str(path)] = inode
        disk.durable = dict(disk.live)
        return disk

    def apply(self, event: Event) -> None:
        """The next event."""
        if event.kind in {"write", "truncate"}:
            if event.path in self.live:
                self.live[event.path].change(event)
        elif event.kind == "sync":
            if event.path in self.live:
                self.live[event.path].sync()
            for named in self.pending.pop(event.path, ()):
                _name(self.durable, named, self.inodes)
        elif event.kind != "told":
            if event.kind == "make":
                self.inodes[id(event)] = Inode(folder=event.data == b"folder")
            elif event.kind in {"move", "link"}:
                self.inodes[id(event)] = self.live[event.path]
            self.pending.setdefault(_folder(event.to or event.path), []).append(event)
            _name(self.live, event, self.inodes)

    def image(self, chance: random.Random, mode: str) -> dict[str, bytes]:
        """What the disk may hold if the power goes now: path within the folder -> content.

        "drop": nothing that was not synced. "keep": all of it. "torn": of each write and each folder's names a part.
        """
        names = dict(self.durable)
        for waiting in self.pending.values():
            kept = {"drop": 0, "keep": len(waiting)}.get(mode, chance.randint(0, len(waiting)))
            for event in waiting[:kept]:
                _name(names, event, self.inodes)
        found = {}
        for path, inode in names.items():
            if inode.folder or not all(parent in names for parent in self._above(path)):
                continue
            content = bytearray(inode.disk)
            for event in inode.pending:
                for part in _left_of(event, chance, mode):
                    _put(content, part)
            found[path[len(self.root) + 1 :]] = bytes(content)
        return found

    def _above(self, path: str) -> Iterator[str]:
        while (path := _folder(path)) != self.root:
            yield path


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(names: dict[str, Inode], event: Event, inodes: dict[int, Inode]) -> None:
    if event.kind == "drop":
        names.pop(event.path, None)
        return
    names[event.to or event.path] = inodes[id(event)]
    if event.kind == "move":
        names.pop(event.path, None)


def _left_of(event: Event, chance: random.Random, mode: str) -> Iterator[Event]:
    """What is there of a change that nobody has waited for."""
    if mode == "keep":
        yield event
    elif mode == "torn":
        luck = chance.random()
        if luck < 0.45:
            return
        sectors = -(-len(event.data) // SECTOR)
        if event.kind == "write" and luck < 0.6 and sectors > 1:
            cut = SECTOR * chance.randrange(1, sectors)
            if chance.random() < 0.5:
                yield Event("write", event.path, event.offset, event.data[:cut])
            else:
                yield Event("write", event.path, event.offset + cut, event.data[cut:])
        elif event.kind == "write" and luck < 0.65:
            yield Event("write", event.path, event.offset, bytes(len(event.data)))  # its space, and not its bytes
        else:
            yield event


def events(record: str, before: Disk) -> list[Event]:
    """What a `tracing.recording` of CALLS did to the disk `before`, and what it told the world, in order."""
    return list(_Reading(before).of(record))


class _Reading:
    """Reads a record; knows where each descriptor's next write goes."""

    def __init__(self, before: Disk) -> None:
        self._root = before.root
        self._names = set(before.live)
        self._offsets: dict[tuple[str, str], int] = {}

    def of(self, record: str) -> Iterator[Event]:
        begun: dict[str, str] = {}
        for line in record.split("\n"):
            matched = _CALL.match(line)
            if matched is None:
                continue
            thread, resumed, rest, call, arguments = matched.groups()
            if call is not None:
                if arguments.endswith("<unfinished ...>"):
                    begun[thread] = arguments.removesuffix("<unfinished ...>")
                    yield from self._told(call, begun[thread])  # it may be with its reader before the call returns
                    continue
                yield from self._told(call, arguments)
            else:
                call, arguments = resumed, begun.pop(thread, "") + rest
            head, _, result = arguments.rpartition("= ")
            if re.match(r"\d", result):
                yield from self._done(call, head.rstrip().removesuffix(")"), int(result.split("<")[0].split()[0]))

    def _told(self, call: str, arguments: str) -> Iterator[Event]:
        if call not in {"write", "writev", "sendto", "sendmsg"}:
            return
        descriptor, path = self._descriptor(arguments)
        if path.startswith("socket:"):
            for answer in _ANSWER.finditer(_bytes(arguments)):
                yield Event("told", data=answer[1])
        elif descriptor in {"1", "2"} and not path.startswith(self._root + "/"):
            yield Event("told", to=descriptor, data=_bytes(arguments))

    def _done(self, call: str, arguments: str, result: int) -> Iterator[Event]:
        descriptor, path = self._descriptor(arguments)
        paths = _texts(arguments) if "write" not in call else []
        if call == "openat":
            yield from self._opened(arguments, paths[0].decode(), str(result))
        elif call in {"rename", "renameat", "renameat2", "link", "linkat"}:
            if self._ours(paths[1].decode()):
                kind = "move" if call.startswith("rename") else "link"
                self._names.add(paths[1].decode())
                if kind == "move":
                    self._names.discard(paths[0].decode())
                yield Event(kind, paths[0].decode(), to=paths[1].decode())
        elif call in {"unlink", "unlinkat"}:
            if self._ours(paths[0].decode()):
                self._names.discard(paths[0].decode())
                yield Event("drop", paths[0].decode())
        elif call in {"mkdir", "mkdirat"}:
            if self._ours(paths[0].decode()):
                yield Event("make", paths[0].decode(), data=b"folder")
        elif call in {"copy_file_range", "sendfile"}:
            if self._ours(path) or any(self._ours(p) for p in re.findall(r"<([^>]*)>", _plain(arguments))):
                raise NotImplementedError(f"{call} below the recorded folder")
        elif path == self._root or self._ours(path):
            yield from self._file(call, arguments, descriptor, path, result)

    def _opened(self, arguments: str, path: str, descriptor: str) -> Iterator[Event]:
        if not self._ours(path):
            return
        self._offsets[descriptor, path] = 0
        if "O_CREAT" in arguments and path not in self._names:
            yield Event("make", path)
        self._names.add(path)
        if "O_TRUNC" in arguments:
            yield Event("truncate", path)
        if "O_APPEND" in arguments:
            self._offsets[descriptor, path] = -1

    def _file(self, call: str, arguments: str, descriptor: str, path: str, result: int) -> Iterator[Event]:
        if call in {"fsync", "fdatasync"}:
            yield Event("sync", path)
        elif call == "ftruncate":
            yield Event("truncate", path, int(arguments.rsplit(",", 1)[1]))
        elif call == "pwrite64":
            yield Event("write", path, int(arguments.rsplit(",", 1)[1]), _bytes(arguments)[:result])
        elif call == "lseek":
            self._offsets[descriptor, path] = result
        elif call in {"write", "writev"}:
            at = self._offsets.setdefault((descriptor, path), 0)
            if at < 0:
                raise NotImplementedError(f"{path} is appended to")
            self._offsets[descriptor, path] = at + result
            yield Event("write", path, at, _bytes(arguments)[:result])
        else:
            raise NotImplementedError(f"{call} of {path}")

    def _descriptor(self, arguments: str) -> tuple[str, str]:
        matched = _NAME_OF_FD.match(arguments)
        return (matched[1], _plain(matched[2] or "")) if matched else ("", "")

    def _ours(self, path: str) -> bool:
        return path.startswith(self._root + "/") and not path.endswith("-shm")


def _plain(text: str) -> str:
    return re.sub(
        r"(?:\\x[0-9a-f]{2})+", lambda m: bytes.fromhex(m[0].replace("\\x", "")).decode("utf-8", "replace"), text
    )


def _texts(arguments: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]


def _bytes(arguments: str) -> bytes:
    return b"".join(_texts(arguments))


def lay(image: dict[str, bytes], folder: Path) -> None:
    """Writes the image into `folder`, which is made."""
    for name, content in image.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
    folder.mkdir(parents=True, exist_ok=True)
