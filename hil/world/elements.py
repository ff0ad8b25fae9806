"""Files of orbital elements: two-line element sets (TLE) and orbit mean-elements messages (OMM).

A TLE file holds two lines per satellite, each ending in a checksum, with an optional line for the name before them
(format: Hoots and Roehrich, Spacetrack Report 3). An OMM file (CCSDS 502.0-B) comes here as JSON, CSV or XML, in the
keywords of the standard, as catalogues publish them.
"""

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from math import isfinite, pi
from pathlib import Path
from typing import Any, Final

from sgp4 import omm
from sgp4.api import SGP4_ERRORS, WGS72, Satrec

from flightsw.errors import ConfigError

TLE_COLUMNS: Final = 69
"""Length of an element line, checksum included. Source: Spacetrack Report 3."""
OMM_FIELDS: Final = (
    "EPOCH",
    "MEAN_MOTION",
    "ECCENTRICITY",
    "INCLINATION",
    "RA_OF_ASC_NODE",
    "ARG_OF_PERICENTER",
    "MEAN_ANOMALY",
    "BSTAR",
)
"""Keywords that SGP4 needs. Source: CCSDS 502.0-B-3 table 4-3."""
OMM_DEFAULTS: Final = {
    "OBJECT_ID": "",
    "CLASSIFICATION_TYPE": "U",
    "EPHEMERIS_TYPE": "0",
    "ELEMENT_SET_NO": "0",
    "REV_AT_EPOCH": "0",
    "NORAD_CAT_ID": "0",
    "MEAN_MOTION_DOT": "0",
    "MEAN_MOTION_DDOT": "0",
}
"""Keywords that name or describe the object but do not move it under SGP4, and what stands for them if absent."""


def read_tle(path: Path) -> list[tuple[str, Satrec]]:
    """The satellites of a TLE file, by name (or `norad-` and the catalogue number), in the order of the file.

    Raises:
        ConfigError: names file, line, what is there and what was expected.
    """
    satellites: list[tuple[str, Satrec]] = []
    name, first = "", ""
    for number, raw in enumerate(_text(path).splitlines(), 1):
        line = raw.rstrip()
        where = f"{path}:{number}"
        if first:
            _check_element_line(where, line, "2")
            if first[2:7] != line[2:7]:
                raise ConfigError(
                    f"{where}: catalogue number {line[2:7]!r}, expected {first[2:7]!r} of the line before"
                )
            try:
                satrec = Satrec.twoline2rv(first, line)
            except ValueError as error:
                raise ConfigError(f"{where}: element set of {first[2:7]}: {error}") from None
            _check_satrec(where, satrec)
            satellites.append((name or f"norad-{first[2:7].strip()}", satrec))
            name, first = "", ""
        elif line.startswith("1 ") and len(line) >= TLE_COLUMNS:
            _check_element_line(where, line, "1")
            first = line
        elif line and not name:
            name = line.removeprefix("0 ").strip()
        elif line:
            raise ConfigError(f"{where}: {line!r}, expected element line 1 of {name!r} ({TLE_COLUMNS} columns)")
    if name or first:
        raise ConfigError(f"{path}: ends within the element set of {name or first[2:7]!r}, expected lines 1 and 2")
    return satellites


def read_omm(path: Path) -> list[tuple[str, Satrec]]:
    """The satellites of an OMM file (`.json`, `.csv` or `.xml`), in the order of the file.

    Raises:
        ConfigError: names file, line or record, field, value and what was expected.
    """
    readers = {".json": _json_records, ".csv": _csv_records, ".xml": _xml_records}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(readers)}")
    return [_satellite(where, fields) for where, fields in readers[path.suffix.lower()](path)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8, expected a text file") from None


def _check_element_line(where: str, line: str, kind: str) -> None:
    if len(line) != TLE_COLUMNS or not line.startswith(f"{kind} ") or not line.isascii():
        raise ConfigError(f"{where}: {line!r}, expected element line {kind} with {TLE_COLUMNS} columns")
    checksum = sum(int(c) if c.isdigit() else c == "-" for c in line[:-1]) % 10
    if line[-1] != str(checksum):
        raise ConfigError(f"{where}: checksum {line[-1]!r}, expected '{checksum}'")


def _check_satrec(where: str, satrec: Satrec) -> None:
    if satrec.error:
        raise ConfigError(f"{where}: SGP4 refuses the elements: {SGP4_ERRORS.get(satrec.error, satrec.error)}")
    if not isfinite(satrec.no_kozai) or satrec.no_kozai <= 0:
        raise ConfigError(f"{where}: mean motion {satrec.no_kozai * 720 / pi:g} rev/day, expected above 0")


def _json_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        records = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # integers of 5,000 digits, and arrays nested as deep
        raise ConfigError(f"{path}: not JSON: {error}") from None
    for number, record in enumerate(records if isinstance(records, list) else [records], 1):
        where = f"{path}: record {number}"
        if not isinstance(record, dict):
            raise ConfigError(f"{where}: {record!r}, expected an object with the keywords of an OMM")
        yield where, record


def _csv_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(_text(path).splitlines(), restval="")
    try:
        for fields in reader:
            yield f"{path}:{reader.line_num}", fields
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num + 1}: not CSV: {error}") from None


def _xml_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        root = ET.fromstring(_text(path))
    except ET.ParseError as error:
        raise ConfigError(f"{path}:{error.position[0]}: not XML: {error}") from None
    for number, segment in enumerate(root.iter("segment"), 1):
        yield f"{path}: segment {number}", {element.tag: element.text for element in segment.iter()}


def _satellite(where: str, record: Mapping[str, Any]) -> tuple[str, Satrec]:
    """One record as name and propagator; absent descriptive keywords get their defaults."""
    fields = dict(OMM_DEFAULTS)
    fields.update({key: str(value).strip() for key, value in record.items() if value not in (None, "")})
    for field in OMM_FIELDS:
        if field not in fields:
            raise ConfigError(f"{where}: {field} is missing, expected {', '.join(OMM_FIELDS)}")
        if field != "EPOCH":
            _check_number(where, field, fields[field])
    epoch = fields["EPOCH"].removesuffix("Z")
    fields["EPOCH"] = epoch if "." in epoch else f"{epoch}.0"
    satrec = Satrec()
    try:
        omm.initialize(satrec, fields, WGS72)
    except (ValueError, TypeError, OverflowError) as error:  # a date, or one of the descriptive fields
        raise ConfigError(f"{where}: {error}") from None
    _check_satrec(where, satrec)
    return fields.get("OBJECT_NAME") or f"norad-{fields['NORAD_CAT_ID']}", satrec


def _check_number(where: str, field: str, value: str) -> None:
    try:
        is_number = isfinite(float(value))
    except ValueError:
        is_number = False
    if not is_number:
        raise ConfigError(f"{where}: {field} is {value!r}, expected a number")
