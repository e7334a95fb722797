"""Verifies an archive of evidence as its README.txt says, without Tidings. Reads the archive from standard input."""

import hashlib
import io
import json
import sys
import tarfile


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


with tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()), mode="r:gz") as archive:
    files = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}

manifest = json.loads(files["manifest.json"])
for name, told in manifest["files"].items():
    assert (len(files[name]), sha256(files[name])) == (told["octets"], told["sha256"]), name
assert set(files) == {"manifest.json", *manifest["files"]}

previous, count, texts = "0" * 64, 0, 0
known = {"README.txt", "summary.html", "evidence.ndjson"}
for line in files["evidence.ndjson"].decode().splitlines():
    entry, count = json.loads(line), count + 1
    body = line.partition('"body":')[2][:-1]
    assert entry["seq"] == count and entry["previous"] == previous, line
    fields = [entry["notice"], str(entry["seq"]), entry["at"], entry["kind"], entry["person"] or "-", body, previous]
    netstrings = b"".join(b"%d:%s," % (len(text.encode()), text.encode()) for text in ["tidings evidence 1", *fields])
    assert entry["hash"] == sha256(netstrings), line
    previous = entry["hash"]
    if entry["kind"] == "published":
        for version in filter(None, [entry["body"]["version"], entry["body"]["before"]]):
            for text in version["texts"]:
                name = f"texts/{version['number']}.{text['language']}.md"
                assert sha256(files[name]) == text["sha256"], name
                known.add(name)
                texts += 1
    for told in entry["body"].get("told", []) if entry["kind"] == "round" else []:
        known |= {f"parts/{value}.txt" for name, value in told.items() if name.endswith("_sha256")}
assert entry["kind"] == "exported"
assert sha256(files["sample.eml"]) == entry["body"]["sample_sha256"]
assert set(manifest["files"]) == known | {"sample.eml"}
for name in files:
    assert not name.startswith("parts/") or name == f"parts/{sha256(files[name])}.txt", name
assert manifest["head"] == {"seq": count, "hash": previous}
json.dump({"files": sorted(files), "entries": count, "texts": texts, "head": previous}, sys.stdout)
