"""Disclosure record of a video: its digital source type in IPTC's terms, for readers that know no C2PA.

MP4 and MOV videos have an XMP packet in a box behind the last box, which the signature covers. Other videos have a tag. Sources:
XMP specification part 3, IPTC Photo Metadata Standard (`Digital Source Type`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, BinaryIO, Final
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from gateway.media.inspection import inspect_tags
from gateway.media.mp4 import boxes_at_all_levels, read_at
from gateway.media.muxer import SOURCE_TYPE_TAG
from gateway.provenance.binding import embedded_type
from gateway.provenance.claim import SYNTHETIC
from gateway.safe_paths import open_media_file
from services.common.errors import MediaUnsupportedError

XMP_ID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Id of the `uuid` box of an XMP packet. Source: XMP specification part 3, 1.2.7."""
LARGEST_PACKET: Final = 256 << 10
"""Largest XMP packet that is read, bytes. A tree of elements takes up to 120 times as much memory."""
_MOST_LEVELS: Final = 64
"""Most levels of elements in a packet. XMP of cameras and editors has 10."""
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC: Final = "http://purl.org/dc/elements/1.1/"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_REPLACED: Final = (
    (_IPTC, "DigitalSourceType"),
    ("http://purl.org/dc/terms/", "provenance"),  # the URL of a manifest that is not the manifest of this video
)
_EMPTY: Final = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta>'.encode()
_BEGIN: Final = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_END: Final = '<?xpacket end="r"?>'


def find_packet(file: IO[bytes]) -> bytes:
    """Return the XMP packet of an MP4 or MOV file; empty: there is none of 1 byte to LARGEST_PACKET."""
    for box in boxes_at_all_levels(file, {b"moov", b"udta"}):
        if box.kind == b"uuid" and read_at(file, box.body, len(XMP_ID)) == XMP_ID:
            begin = box.body + len(XMP_ID)
        elif box.kind == b"XMP_":  # QuickTime's box
            begin = box.body
        else:
            continue
        if begin < box.end <= begin + LARGEST_PACKET:
            return read_at(file, begin, box.end - begin)
    return b""


def append_packet(video: BinaryIO, packet: bytes) -> None:
    """Write an XMP packet behind the last box of an MP4 or MOV video.

    Raises:
        OSError: the video cannot be written.
    """
    video.seek(0, 2)
    video.write(struct.pack(">I4s", 8 + len(XMP_ID) + len(packet), b"uuid") + XMP_ID + packet)
    video.flush()


def disclosure_packet(sentence: str, own: bytes = b"") -> bytes:
    """Return an XMP packet with the digital source type of synthetic media and a description. Equal arguments give equal bytes.

    Args:
        sentence: what is synthetic. The sentence comes before the description that the footage has.
        own: XMP packet of the footage; empty: the footage has none. All else of the packet stays.

    Raises:
        ValueError: the footage's packet cannot be read.
    """
    document = _parsed(own or _EMPTY)
    root = document.documentElement
    assert root is not None
    rdf = document.getElementsByTagNameNS(_RDF, "RDF")[0]
    descriptions = _children(rdf, _RDF, "Description")
    about = next((node.getAttributeNS(_RDF, "about") for node in descriptions), "")
    for description in descriptions:
        for space, name in _REPLACED:
            if description.hasAttributeNS(space, name):
                description.removeAttributeNS(space, name)
            for old in _children(description, space, name):
                description.removeChild(old)
    added = document.createElementNS(_RDF, "rdf:Description")
    for prefix, space in (("rdf", _RDF), ("dc", _DC), ("Iptc4xmpExt", _IPTC)):
        added.setAttribute(f"xmlns:{prefix}", space)
    added.setAttributeNS(_RDF, "rdf:about", about)
    kind = document.createElementNS(_IPTC, "Iptc4xmpExt:DigitalSourceType")
    kind.appendChild(document.createTextNode(SYNTHETIC))
    added.appendChild(kind)
    texts = [
        item for element in rdf.getElementsByTagNameNS(_DC, "description") for item in element.getElementsByTagNameNS(_RDF, "li")
    ]
    if texts:
        text = next((item for item in texts if item.getAttribute("xml:lang") == "x-default"), texts[0])
        said = _text(text)
        for part in list(text.childNodes):
            text.removeChild(part)
        text.appendChild(document.createTextNode(said if said.startswith(sentence) else f"{sentence} | {said}"))
    else:
        added.appendChild(_description(document, sentence))
    rdf.appendChild(added)
    return f"{_BEGIN}{root.toxml()}{_END}".encode()


def source_type_of(file: Path) -> str:
    """Return the digital source type that the metadata of a video state, or an XMP packet in a file of its own (`.xmp`).

    It is an address of a term; empty: they state none.

    Raises:
        MediaUnsupportedError: the file is missing, no regular file, empty, or may not be read.
    """
    is_packet = file.suffix.lower() == ".xmp"
    if embedded_type(file) is None and not is_packet:
        try:
            tags = inspect_tags(file)
        except MediaUnsupportedError:  # no video
            return ""
        return next((value for key, value in tags.items() if key.upper() == SOURCE_TYPE_TAG), "")
    with open_media_file(file, field="file") as handle, open(handle, "rb", closefd=False) as video:
        packet = video.read(LARGEST_PACKET) if is_packet else find_packet(video)
    try:
        document = _parsed(packet)
    except ValueError:
        return ""
    elements = document.getElementsByTagNameNS(_IPTC, "DigitalSourceType")
    if elements:
        return _text(elements[0]).strip() or elements[0].getAttributeNS(_RDF, "resource")
    attributes = (node.getAttributeNS(_IPTC, "DigitalSourceType") for node in document.getElementsByTagNameNS(_RDF, "Description"))
    return next(filter(None, attributes), "")


def _parsed(packet: bytes) -> minidom.Document:
    """Return the tree of a packet that holds one RDF.

    Raises:
        ValueError: the packet is no XMP, has elements in more than 64 levels, or declares a type of document, which XMP forbids.
    """
    try:
        document = minidom.parseString(packet.strip(b"\0 \r\n\t"))
    except (ExpatError, ValueError, LookupError) as problem:
        raise ValueError(str(problem)) from problem
    _check_depth(document)
    if document.doctype is not None or len(document.getElementsByTagNameNS(_RDF, "RDF")) != 1:
        raise ValueError("the packet is no XMP")
    return document


def _check_depth(document: minidom.Document) -> None:
    """Raise ValueError if a packet has too many levels: minidom calls itself once per level."""
    level: list[minidom.Node] = [document]
    for _ in range(_MOST_LEVELS):
        level = [child for node in level for child in node.childNodes]
    if level:
        raise ValueError("the packet has too many levels")


def _children(parent: minidom.Element, space: str, name: str) -> list[minidom.Element]:
    nodes = [node for node in parent.childNodes if isinstance(node, minidom.Element)]
    return [node for node in nodes if (node.namespaceURI, node.localName) == (space, name)]


def _text(node: minidom.Element) -> str:
    return "".join(part.data for part in node.childNodes if isinstance(part, minidom.Text))


def _description(document: minidom.Document, sentence: str) -> minidom.Element:
    item = document.createElementNS(_RDF, "rdf:li")
    item.setAttribute("xml:lang", "x-default")
    item.appendChild(document.createTextNode(sentence))
    languages = document.createElementNS(_RDF, "rdf:Alt")
    languages.appendChild(item)
    description = document.createElementNS(_DC, "dc:description")
    description.appendChild(languages)
    return description
