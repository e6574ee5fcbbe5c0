"""No reader leaves a file out in silence: how many, why, and one of them."""

from __future__ import annotations

import logging
import os
import socket

import pytest

from mdtheory.data import left_out
from mdtheory.data.open import detect, open_class_folders, open_mini_imagenet
from tests.data import forms

IMAGE = forms.encoded(forms.picture("extra", 0))


def write(root, *names, data=IMAGE):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def told(root):
    return [str(one) for one in detect(root).left_out]


def without_heif(monkeypatch):
    monkeypatch.setattr(left_out, "formats", lambda: ("JPEG", "PNG"))
    left_out.image_suffixes.cache_clear()


@pytest.fixture(autouse=True)
def fresh():
    yield
    left_out.image_suffixes.cache_clear()


FORMS = {
    "class folders": (forms.as_folders, "train/n01532829/"),
    "csv": (forms.as_csv, "images/"),
    "parquet": (forms.as_parquet, ""),
    "pickles": (forms.as_cache_pickles, ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_counts_what_it_does_not_take(tmp_path, form, monkeypatch, caplog):
    without_heif(monkeypatch)
    make, place = FORMS[form]
    root = make(tmp_path / "set")
    assert told(root) == []
    write(root, place + "a.heic", place + "b.HEIC", place + "x.psd", place + "noext")
    write(root, place + "notes.txt", ".DS_Store", "__MACOSX/x.png")
    heic, other, system, texts = told(root)
    assert texts == f"1 {left_out.TEXTS} such as '{place}notes.txt'"
    assert heic == f"2 {left_out.reason_for('a.heic')} such as '{place}a.heic'"
    assert "pip install pillow-heif" in heic
    assert other == f"2 {left_out.OTHER} such as '{place}noext'"
    assert system.startswith(("1 hidden", "2 hidden"))
    with caplog.at_level(logging.WARNING):
        source = open_mini_imagenet(root, image_size=8, cache_dir=tmp_path / "cache")
    assert caplog.text.count("left out: 2 HEIC images") == 1
    assert "hidden" not in caplog.text and "notes" not in caplog.text
    assert source.summary()["left_out"] == [heic, other, system, texts]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train/n01532829/sub/0.png", left_out.DEEPER),
        ("train/n01532829/sub/deep/0.png", left_out.DEEPER),
        ("0.png", "images beside the class folders"),
        ("others/robin/0.png", "images in folders beside train, val and test"),
    ],
)
def test_images_in_odd_places_are_counted(tmp_path, name, reason):
    root = forms.as_folders(tmp_path / "set")
    write(root, name)
    assert told(root) == [f"1 {reason} such as '{name}'"]


def test_other_forms_count_images_that_they_do_not_name(tmp_path):
    for form, name in (("csv", "images/extra.png"), ("parquet", "data/extra.parquet")):
        root = FORMS[form][0](tmp_path / form)
        write(root, name)
        assert len(told(root)) == 1
        assert f"such as '{name}'" in told(root)[0]
    root = forms.as_label_pickles(tmp_path / "pickles")
    write(root, "miniImageNet_category_split_train_phase_val.pickle")
    assert "further images of the training classes" in told(root)[0]


def test_an_alphabet_is_not_taken_for_a_class(tmp_path):
    """Omniglot: alphabet/character/*.png, with and without split folders."""
    for alphabet in ("Greek", "Latin"):
        for character in ("character01", "character02"):
            write(tmp_path / "a", f"{alphabet}/{character}/1.png")
            write(tmp_path / "b", f"train/{alphabet}/{character}/1.png")
            write(tmp_path / "c", f"images/{alphabet}/{character}/1.png")
    for name, words in {
        "a": "'Greek/character01/1.png' lies one level too deep: give .*Greek', or move",
        "b": "'character01': the classes lie one level too deep, so move 'character01' and",
        "c": "'images/Greek/character01/1.png' lies 2 levels too deep: give .*images/Greek'",
    }.items():
        with pytest.raises(ValueError, match=words):
            open_class_folders(tmp_path / name, in_memory=True)
    write(tmp_path / "d", "1.png")
    with pytest.raises(ValueError, match=r"1\.png' lies one level too high: put it into a folder"):
        open_class_folders(tmp_path / "d", in_memory=True)
    assert len(open_class_folders(tmp_path / "a" / "Greek", in_memory=True).files) == 2


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("form", ["class folders", "csv", "parquet", "pickles"])
def test_only_regular_files_are_opened(tmp_path, form, kind, monkeypatch):
    """A pipe named like an image hung for ever."""
    make, place = FORMS[form]
    root = make(tmp_path / "set")
    name = {"parquet": "z-test.parquet", "pickles": "test.pkl"}.get(form, f"{place}zz.png")
    if form == "pickles":
        (root / "mini-imagenet-cache-test.pkl").unlink()
    if form == "csv":
        with (root / "train.csv").open("a") as table:
            table.write("zz.png,n01532829\n")
    if kind == "pipe":
        os.mkfifo(root / name)
    elif kind == "device":
        (root / name).symlink_to("/dev/zero")
    else:
        monkeypatch.chdir((root / name).parent)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind((root / name).name)
    words = {"pipe": "a named pipe", "socket": "a socket", "device": "a device"}[kind]
    with pytest.raises(ValueError, match=rf"must be a regular file, got {words}; remove it"):
        open_mini_imagenet(root, image_size=8, cache_dir=tmp_path / "cache")


def test_linked_folders_are_walked_once(tmp_path):
    write(tmp_path, "a/b/1.png", "c/2.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "c").symlink_to(tmp_path / "c", target_is_directory=True)
    names = [path.name for path in left_out.walk(tmp_path)]
    assert sorted(names) == ["1.png", "2.png"]


def test_meta_albums_table_is_read(tmp_path):
    """labels.csv (FILE_NAME, CATEGORY, SUPER_CATEGORY) beside images/."""
    root = tmp_path / "album"
    lines = ["FILE_NAME,CATEGORY,SUPER_CATEGORY"]
    for k in range(6):
        write(root, f"images/{k}.png", data=forms.encoded(forms.picture(str(k), 0)))
        lines.append(f"{k}.png,{('ant', 'bee')[k % 2]},insect")
    write(root, "images/unnamed.png")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "info.json").write_text("{}")
    source = open_class_folders(root, image_size=12, fractions=(1, 0, 0), in_memory=True)
    assert source.classes("train") == ("ant", "bee")
    assert source.files == ("0.png", "2.png", "4.png", "1.png", "3.png", "5.png")
    assert [str(one) for one in source.left_out] == [
        "1 images that labels.csv does not name such as 'images/unnamed.png'",
        f"1 {left_out.TEXTS} such as 'info.json'",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\n../1.png,a\n", "file name below its folder and a label, got '../1.png', 'a'"),
        ("file,label\n/etc/x.png,a\n", "below its folder"),
        ("file,label\n1.png,\n", "got '1.png', '' in line 2"),
        ("file,label\n2.png,a\n", "got 1 missing such as '2.png'"),
        ("file,label,split\n1.png,a,tset\n", "must be train, val or test, got 'tset' in line 2"),
        ("file,label\n1.png,a\n1.png,a\n", "unique within a class, got '1.png' twice"),
        ("file,filename,label\n1.png,1.png,a\n", "one column for file, got 'file' and 'filename'"),
        ("file,label\n", "must hold at least one image"),
        ("photo,species\n1.png,a\n", r"UTF-8 with the columns file and label, got \['photo', 'sp"),
        ("\0file,label\n1.png,a\n", r"with the columns file and label, got .* correct its first"),
        ("", "with the columns file and label, got another file; save it as CSV UTF-8"),
    ],
)
def test_broken_tables_of_labels(tmp_path, text, words):
    write(tmp_path / "set", "images/1.png")
    (tmp_path / "set" / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        open_class_folders(tmp_path / "set", image_size=8, in_memory=True)


def test_a_table_of_labels_in_utf_16_is_said_to_be_another_file(tmp_path):
    write(tmp_path, "1.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,a\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"in UTF-8 .*, got another file; save it as CSV UTF-8"):
        open_class_folders(tmp_path, image_size=8, in_memory=True)


def test_a_table_of_labels_of_another_name_is_told_its_name(tmp_path):
    write(tmp_path, "1.png")
    (tmp_path / "a.csv").write_text("colour,size\nred,1\n")
    with pytest.raises(ValueError, match=r"'1\.png' lies one level too high"):
        open_class_folders(tmp_path, image_size=8, in_memory=True)
    (tmp_path / "b.TSV").write_text("file\tlabel\n1.png\ta\n")
    with pytest.raises(ValueError, match=r"called 'labels.csv', got 'b.TSV'; rename it"):
        open_class_folders(tmp_path, image_size=8, in_memory=True)


def test_a_column_of_groups_that_is_not_read_is_said(tmp_path, caplog):
    write(tmp_path, "images/1.png")
    (tmp_path / "labels.csv").write_text("file,label,Patient\n1.png,a,7\n")
    open_class_folders(tmp_path, image_size=8, in_memory=True)
    assert "the column 'patient' of" in caplog.text and "TaskSet.from_csv keeps" in caplog.text


def test_heic_is_read_where_the_package_is_there(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    write(tmp_path, "a/1.png")
    heif.from_pillow(forms.picture("phone", 0, 64)).save(tmp_path / "a" / "2.heic")
    source = open_class_folders(tmp_path, image_size=8, in_memory=True)
    assert source.files == ("1.png", "2.heic")
    assert source.left_out == ()


def test_postscript_in_a_png_starts_nothing(tmp_path, monkeypatch):
    """Pillow tells formats by content and would start Ghostscript."""
    from PIL import EpsImagePlugin

    def never(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", never)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    write(tmp_path, "a/1.png", data=eps)
    with pytest.raises(ValueError, match=r"must be an image .*, got something else"):
        open_class_folders(tmp_path, image_size=8, in_memory=True)
    from PIL import Image

    # the control: without the list of formats it does start
    with pytest.raises(AssertionError), Image.open(tmp_path / "a" / "1.png") as image:
        image.load()


TABLES = {
    "train.csv": (forms.as_csv, "val.csv"),
    "labels.csv": (forms.as_folders, "labels.csv"),
    "beside class folders": (forms.as_folders, "test.csv"),
}


def put(path, kind):
    path.unlink(missing_ok=True)
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "a device" else "/nowhere")


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a link to nothing", "a folder"])
@pytest.mark.parametrize("form", TABLES)
def test_a_table_that_is_no_file_is_not_passed_over(tmp_path, form, kind):
    """Without its table a folder would be another data set."""
    make, name = TABLES[form]
    root = make(tmp_path / "set")
    detect(root)
    put(root / name, kind)
    with pytest.raises(ValueError, match=rf"{name}' must be a regular file, got {kind}; "):
        detect(root)


def test_pipes_devices_and_broken_links_are_called_so(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    names = {"pipe.txt": "a named pipe", "zero": "a device", ".gone": "a link to nothing"}
    for name, kind in names.items():
        put(root / "train" / "n01532829" / name, kind)
    assert told(root) == [
        f"1 {words} such as 'train/n01532829/{name}'"
        for words, name in (
            ("devices", "zero"),
            ("links to nothing", ".gone"),
            ("named pipes", "pipe.txt"),
        )
    ]


@pytest.mark.parametrize("twin", ["Cat", "cat ", "CAT", "\uff43at", "c\u200bat", "ca  t"])
def test_classes_that_differ_in_case_blanks_or_form_alone_are_named(tmp_path, twin, caplog):
    """Different folders, and most likely one class: trained and tested on."""
    write(tmp_path, "train/cat/1.png", f"test/{twin}/2.png", "val/dog/3.png")
    with caplog.at_level(logging.WARNING):
        open_class_folders(tmp_path, image_size=8, in_memory=True)
    assert ("may be one: rename or join them" in caplog.text) == (twin != "ca  t")
    assert (repr(twin) in caplog.text) == (twin != "ca  t")


def test_a_row_that_is_there_twice_is_refused_at_its_line(tmp_path):
    """A table of millions of such rows is not read to its end first."""
    write(tmp_path, "images/1.png", "images/2.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,a\n./1.png,a\n2.png,b\n")
    with pytest.raises(ValueError, match=r"got '1\.png' twice in class 'a', in line 3 of"):
        open_class_folders(tmp_path, image_size=8, in_memory=True)
