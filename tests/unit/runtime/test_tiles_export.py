# SPDX-License-Identifier: Apache-2.0
"""The log as files: whole, incremental, and each way to tamper with them named."""

import shutil

import pytest
from tests.support.sealed_log import SealedLog

from everyhop.auditlog.verdict import Fault
from everyhop.auditlog.verifying import verify_log
from everyhop.core.errors import Conflict, InputError, NotFound, SettingsError, Unavailable
from everyhop.providers.log_sources import DirectoryFiles, TileSource, UrlFiles
from everyhop.runtime.tiles_export import export_tiles
from everyhop.tlog import Tile, encode_bundle, read_bundle


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("log")
    root.chmod(0o700)
    made = SealedLog(root)
    made.append(700)
    made.sign()
    out = tmp_path_factory.mktemp("out") / "tiles"
    export_tiles(made.storage.log_tree, out, made.signer.verifiers)
    made.append(300)
    made.late = made.sign()
    yield made, out
    made.close()


@pytest.fixture
def tiles(template, tmp_path):
    """Return the files of the first 700 records."""
    return shutil.copytree(template[1], tmp_path / "tiles")


def verify(template, directory, *against):
    notes = [(f"outside-{i}", note.encode()) for i, note in enumerate(against)]
    trusted = template[0].signer.verifiers
    return verify_log(TileSource(DirectoryFiles(directory)), trusted=trusted, against=notes)


def rewrite(path, tile, change):
    entries = read_bundle(tile, path.read_bytes())
    path.write_bytes(encode_bundle(change(entries)))


BUNDLE = Tile(None, 1)


def swap(entries):
    return [*entries[:9], entries[10], entries[9], *entries[11:]]


def forge(entries):
    return [*entries[:9], entries[9].replace(b"agent", b"other"), *entries[10:]]


@pytest.mark.parametrize(
    ("change", "fault", "index"), [(swap, Fault.REORDERED, 265), (forge, Fault.ALTERED, 265)]
)
def test_records_that_were_changed(template, tiles, change, fault, index):
    rewrite(tiles / BUNDLE.path, BUNDLE, change)
    verdict = verify(template, tiles)
    assert [(f.fault, f.index) for f in verdict.findings] == [(fault, index)]


def test_one_bit_of_a_tile(template, tiles):
    path = tiles / "tile/0/001"
    data = bytearray(path.read_bytes())
    data[32 * 9] ^= 1
    path.write_bytes(data)
    verdict = verify(template, tiles)
    assert verdict.outcome == "tampered"
    assert {f.fault for f in verdict.findings} == {Fault.TREE}
    assert verdict.first_bad == 256


def test_an_edited_checkpoint(template, tiles):
    path = tiles / "checkpoint"
    path.write_text(path.read_text().replace("\n700\n", "\n600\n"))
    verdict = verify(template, tiles)
    assert verdict.outcome == "tampered"
    assert verdict.findings[-1].fault is Fault.FORGED


def test_an_older_state_and_a_checkpoint_that_was_kept(template, tiles):
    verdict = verify(template, tiles, template[0].late)
    assert [(f.fault, f.index, f.last) for f in verdict.findings] == [(Fault.RESTORED, 700, 999)]


@pytest.mark.parametrize("name", ["tile/0/001", "tile/entries/002.p/188", "tile/1/000.p/2"])
def test_a_file_that_is_missing_is_no_verdict(template, tiles, name):
    (tiles / name).unlink()
    verdict = verify(template, tiles)
    assert (verdict.outcome, verdict.findings) == ("unverified", ())
    assert name in verdict.unverified[0]


def test_records_missing_from_the_beginning_have_to_be_accounted_for(template, tiles):
    (tiles / "tile/entries/000").unlink()
    verdict = verify(template, tiles)
    assert [(f.fault, f.index, f.last) for f in verdict.findings] == [(Fault.MISSING, 0, 255)]


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 8193])
def test_a_file_that_has_not_its_form(template, tiles, data):
    (tiles / "tile/0/001").write_bytes(data)
    assert verify(template, tiles).findings[0].fault is Fault.TREE
    (tiles / "tile/entries/001").write_bytes(data[:1])
    with pytest.raises(InputError):
        verify(template, tiles)


def test_places_that_hold_no_log(tmp_path):
    with pytest.raises(NotFound):
        TileSource(DirectoryFiles(tmp_path))
    (tmp_path / "checkpoint").write_text("x")
    with pytest.raises(InputError):
        TileSource(DirectoryFiles(tmp_path))
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(Unavailable):
        TileSource(DirectoryFiles(tmp_path))
    with pytest.raises(InputError, match="not a URL"):
        UrlFiles("ftp://x")


def test_a_directory_that_is_no_log_or_another_one_is_left_alone(template, tmp_path):
    log = template[0]
    (tmp_path / "mine").write_text("x")
    with pytest.raises(Conflict, match="is not empty"):
        export_tiles(log.storage.log_tree, tmp_path, log.signer.verifiers)
    with pytest.raises(SettingsError):
        export_tiles(log.storage.log_tree, tmp_path / "mine" / "x", log.signer.verifiers)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("change", [("\n700\n", "\n600\n"), ("/log/", "/lag/")])
def test_a_directory_that_does_not_go_on_to_this_log_is_kept_as_it_is(template, tiles, change):
    log = template[0]
    path = tiles / "checkpoint"
    path.write_text(path.read_text().replace(*change))
    before = path.read_bytes()
    with pytest.raises(Conflict, match="does not go on"):
        export_tiles(log.storage.log_tree, tiles, log.signer.verifiers)
    assert path.read_bytes() == before


def test_a_second_export_writes_what_is_new(template, tiles):
    log = template[0]
    old = {p: p.stat().st_mtime_ns for p in tiles.rglob("*") if p.is_file() and p.name.isdigit()}
    done = export_tiles(log.storage.log_tree, tiles, log.signer.verifiers)
    assert (done.old, done.new, done.left_out) == (700, 1000, 0)
    assert verify(template, tiles, log.late).outcome == "intact"
    untouched = [tiles / "tile/0/000", tiles / "tile/0/001", tiles / "tile/entries/000"]
    assert all(path.stat().st_mtime_ns == old[path] for path in untouched)
    assert not (tiles / "tile/0/002.p").exists()  # full by now
    assert not list(tiles.rglob(".*"))
    assert (tiles / "log.vkey").read_text() == f"{log.signer.verifiers[0]}\n"
    again = export_tiles(log.storage.log_tree, tiles, log.signer.verifiers)
    assert (again.old, again.files) == (1000, 2)


def test_the_first_export_is_the_whole_log(template, tiles):
    verdict = verify(template, tiles)
    assert (verdict.outcome, verdict.size, verdict.signed) == ("intact", 700, 700)
    names = {str(p.relative_to(tiles)) for p in tiles.rglob("*") if p.is_file()}
    assert names == {
        *("checkpoint", "log.vkey", "tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2"),
        *("tile/entries/000", "tile/entries/001", "tile/entries/002.p/188"),
    }


def test_what_was_removed_by_age_is_left_out_and_what_is_missing_is_not_exported(tmp_path):
    tmp_path.chmod(0o700)
    log = SealedLog(tmp_path)
    with pytest.raises(Unavailable, match="signed for yet"):
        export_tiles(log.storage.log_tree, tmp_path / "out", log.signer.verifiers)
    log.append(700)
    log.storage.records.prune(now=log.clock.now(), keep_rows=300)
    log.sign()
    done = export_tiles(log.storage.log_tree, tmp_path / "out", log.signer.verifiers)
    assert done.left_out == 256
    verdict = verify((log,), tmp_path / "out")
    assert (verdict.outcome, verdict.first_kept) == ("intact", 256)
    log.execute("DELETE FROM records WHERE n = 300")
    with pytest.raises(Conflict, match="record 300 is missing"):
        export_tiles(log.storage.log_tree, tmp_path / "more", log.signer.verifiers)
    log.execute("DELETE FROM records WHERE n = 600")  # its hash went with it: the tile still fills
    with pytest.raises(Conflict, match=r"tile/0/002.p/\d+ is missing"):
        export_tiles(log.storage.log_tree, tmp_path / "evenmore", log.signer.verifiers)
    log.close()
