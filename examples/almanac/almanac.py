"""Sunrise and sunset for a place and a year, after the NOAA solar equations; standard library only.

python almanac.py places.csv 2026 > almanac.txt
"""

import csv
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from math import acos, asin, cos, degrees, pi, radians, sin, tan
from pathlib import Path

ZENITH = radians(90.833)  # the sun's upper edge at the horizon, with refraction


@dataclass(frozen=True)
class Place:
    name: str
    latitude: float
    longitude: float


def read_places(path: Path) -> list[Place]:
    with path.open(newline="", encoding="utf-8") as file:
        return [Place(row["name"], float(row["latitude"]), float(row["longitude"])) for row in csv.DictReader(file)]


def _fractional_year(day: date) -> float:
    return 2 * pi / 365 * (day.timetuple().tm_yday - 1 + 0.5)


def equation_of_time(day: date) -> float:
    """Minutes that a sundial is ahead of the clock."""
    g = _fractional_year(day)
    wobble = 0.000075 + 0.001868 * cos(g) - 0.032077 * sin(g) - 0.014615 * cos(2 * g) - 0.040849 * sin(2 * g)
    return 229.18 * wobble


def declination(day: date) -> float:
    """The sun's declination in radians."""
    g = _fractional_year(day)
    return (
        0.006918
        - 0.399912 * cos(g)
        + 0.070257 * sin(g)
        - 0.006758 * cos(2 * g)
        + 0.000907 * sin(2 * g)
        - 0.002697 * cos(3 * g)
        + 0.00148 * sin(3 * g)
    )


def sun_times(place: Place, day: date) -> tuple[float, float] | None:
    """Sunrise and sunset in minutes after midnight UTC, or None where the sun stays up or down all day."""
    latitude, tilt = radians(place.latitude), declination(day)
    cosine = cos(ZENITH) / (cos(latitude) * cos(tilt)) - tan(latitude) * tan(tilt)
    if not -1 <= cosine <= 1:
        return None
    half_day = 4 * degrees(acos(cosine))
    noon = 720 - 4 * place.longitude - equation_of_time(day)
    return noon - half_day, noon + half_day


def clock(minutes: float) -> str:
    whole = round(minutes) % 1440
    return f"{whole // 60:02d}:{whole % 60:02d}"


def highest_noon(place: Place) -> float:
    """The sun's greatest height in degrees at this latitude: a check by another road."""
    return degrees(asin(cos(radians(place.latitude) - radians(23.44))))


def almanac(places: list[Place], year: int) -> str:
    lines = []
    for place in places:
        lines.append(f"{place.name} ({place.latitude:+.2f}, {place.longitude:+.2f}), times in UTC")
        day = date(year, 1, 1)
        while day.year == year:
            times = sun_times(place, day)
            lines.append(f"{day}  " + (f"{clock(times[0])}  {clock(times[1])}" if times else "no rise or set"))
            day += timedelta(days=1)
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(almanac(read_places(Path(sys.argv[1])), int(sys.argv[2])))
