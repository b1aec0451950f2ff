"""What the sky is known to do."""

import unittest
from datetime import date

from almanac import Place, almanac, clock, declination, equation_of_time, sun_times

QUITO = Place("Quito", -0.18, -78.47)
HELSINKI = Place("Helsinki", 60.17, 24.94)
TROMSO = Place("Tromsø", 69.65, 18.96)


class SunTimes(unittest.TestCase):
    def length(self, place: Place, day: date) -> float:
        times = sun_times(place, day)
        assert times is not None
        return times[1] - times[0]

    def test_days_at_the_equator_are_always_twelve_hours(self) -> None:
        for month in range(1, 13):
            self.assertAlmostEqual(self.length(QUITO, date(2026, month, 15)), 727, delta=3)

    def test_the_longest_day_is_in_june_and_the_shortest_in_december(self) -> None:
        self.assertGreater(self.length(HELSINKI, date(2026, 6, 21)), 18 * 60)
        self.assertLess(self.length(HELSINKI, date(2026, 12, 21)), 6 * 60)

    def test_beyond_the_polar_circle_the_midsummer_sun_does_not_set(self) -> None:
        self.assertIsNone(sun_times(TROMSO, date(2026, 6, 21)))

    def test_the_sun_stands_over_the_tropic_at_midsummer(self) -> None:
        self.assertAlmostEqual(declination(date(2026, 6, 21)), 0.409, delta=0.002)

    def test_the_sundial_is_right_in_the_middle_of_april(self) -> None:
        self.assertAlmostEqual(equation_of_time(date(2026, 4, 15)), 0, delta=0.5)

    def test_a_year_has_a_line_a_day(self) -> None:
        self.assertEqual(sum(line.startswith("2026-") for line in almanac([QUITO], 2026).splitlines()), 365)

    def test_clocks_wrap_at_midnight(self) -> None:
        self.assertEqual((clock(-1), clock(61.4), clock(1440)), ("23:59", "01:01", "00:00"))


if __name__ == "__main__":
    unittest.main()
