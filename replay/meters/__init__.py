"""Meters: average, count or rank recorded values for a plot."""

from flexrec.replay.meters.adapter import MetricMeter
from flexrec.replay.meters.averages import AverageValueMeter, MovingAverageValueMeter
from flexrec.replay.meters.base import Meter
from flexrec.replay.meters.classes import ClassErrorMeter, ConfusionMeter
from flexrec.replay.meters.histogram import HistogramMeter
from flexrec.replay.meters.information import InformationMeter
from flexrec.replay.meters.media import ImageMeter, TextMeter
from flexrec.replay.meters.ranking import APMeter, AUCMeter, mAPMeter
from flexrec.replay.meters.registry import build, meter_info, meter_types, resolve
from flexrec.replay.meters.single import BestValueMeter, LastValueMeter, TimeMeter
from flexrec.replay.meters.squared import MSEMeter

__all__ = [
    "APMeter",
    "AUCMeter",
    "AverageValueMeter",
    "BestValueMeter",
    "ClassErrorMeter",
    "ConfusionMeter",
    "HistogramMeter",
    "ImageMeter",
    "InformationMeter",
    "LastValueMeter",
    "MSEMeter",
    "Meter",
    "MetricMeter",
    "MovingAverageValueMeter",
    "TextMeter",
    "TimeMeter",
    "build",
    "mAPMeter",
    "meter_info",
    "meter_types",
    "resolve",
]
