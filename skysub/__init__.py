"""skysub: sky background of survey visits, estimated and removed.

Names are imported when they are first used, so that ``import skysub`` stays quick and pulls in
neither Dask nor Numba nor astropy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from skysub._version import __version__

if TYPE_CHECKING:
    from skysub.background.amplifiers import Amplifier, AmplifierBackground
    from skysub.background.blocks import LazyBackground, align_chunks
    from skysub.background.config import BackgroundConfig
    from skysub.background.estimate import fit_background, subtract_background
    from skysub.background.faint_light import FaintLight
    from skysub.background.layered import LayeredBackground
    from skysub.background.model import Background, BackgroundList
    from skysub.campaign.campaign import Campaign, open_campaign
    from skysub.campaign.make_templates import templates_of_campaign
    from skysub.campaign.run import Outcome, run_campaign
    from skysub.campaign.template_file import read_templates, write_templates
    from skysub.desk.restore import Restored, restore
    from skysub.desk.subtract import SubtractConfig, Subtracted, subtract
    from skysub.pipeline.calibrate_image import CalibrateImageResult, calibrate_image
    from skysub.pipeline.config import CalibrateImageConfig
    from skysub.pipeline.joint.record import DetectorRecord, record_of
    from skysub.pipeline.joint.templates import VisitTemplates
    from skysub.pipeline.reprocess_config import ReprocessVisitImageConfig
    from skysub.pipeline.reprocess_visit_image import ReprocessVisitImageResult, reprocess_visit_image
    from skysub.pipeline.templates.cells import SkyCells, cells_of
    from skysub.pipeline.templates.lesson import TemplateVisit
    from skysub.pipeline.templates.make import TemplatesConfig, make_templates
    from skysub.pipeline.visit_background import VisitBackground, VisitBackgroundConfig, visit_background
    from skysub.pipeline.zero_points import read_reference
    from skysub.report.dashboard.server import Dashboard, start_dashboard
    from skysub.visit.calibrated import exchange_background, restore_post_isr_image
    from skysub.visit.calibrations import Calibrations, find_calibrations
    from skysub.visit.fits.background import read_background, write_background
    from skysub.visit.fits.lsst_archive import write_lsst_images
    from skysub.visit.fits.read import read_visit_header, read_visit_headers, read_visit_image
    from skysub.visit.fits.write import write_visit_image
    from skysub.visit.image import VisitImage
    from skysub.visit.ingest import IngestMap
    from skysub.visit.planes import MaskPlanes
    from skysub.visit.summary_file import VisitSummary, read_visit_summary

__all__ = [
    "Amplifier",
    "AmplifierBackground",
    "Background",
    "BackgroundConfig",
    "BackgroundList",
    "CalibrateImageConfig",
    "CalibrateImageResult",
    "Calibrations",
    "Campaign",
    "Dashboard",
    "DetectorRecord",
    "FaintLight",
    "IngestMap",
    "LayeredBackground",
    "LazyBackground",
    "MaskPlanes",
    "Outcome",
    "ReprocessVisitImageConfig",
    "ReprocessVisitImageResult",
    "Restored",
    "SkyCells",
    "SubtractConfig",
    "Subtracted",
    "TemplateVisit",
    "TemplatesConfig",
    "VisitBackground",
    "VisitBackgroundConfig",
    "VisitImage",
    "VisitSummary",
    "VisitTemplates",
    "__version__",
    "align_chunks",
    "calibrate_image",
    "cells_of",
    "exchange_background",
    "find_calibrations",
    "fit_background",
    "make_templates",
    "open_campaign",
    "read_background",
    "read_reference",
    "read_templates",
    "read_visit_header",
    "read_visit_headers",
    "read_visit_image",
    "read_visit_summary",
    "record_of",
    "reprocess_visit_image",
    "restore",
    "restore_post_isr_image",
    "run_campaign",
    "start_dashboard",
    "subtract",
    "subtract_background",
    "templates_of_campaign",
    "visit_background",
    "write_background",
    "write_lsst_images",
    "write_templates",
    "write_visit_image",
]

_HOME = {
    "Amplifier": "skysub.background.amplifiers",
    "AmplifierBackground": "skysub.background.amplifiers",
    "Calibrations": "skysub.visit.calibrations",
    "ReprocessVisitImageConfig": "skysub.pipeline.reprocess_config",
    "ReprocessVisitImageResult": "skysub.pipeline.reprocess_visit_image",
    "VisitSummary": "skysub.visit.summary_file",
    "find_calibrations": "skysub.visit.calibrations",
    "read_visit_summary": "skysub.visit.summary_file",
    "reprocess_visit_image": "skysub.pipeline.reprocess_visit_image",
    "exchange_background": "skysub.visit.calibrated",
    "restore_post_isr_image": "skysub.visit.calibrated",
    "Background": "skysub.background.model",
    "BackgroundConfig": "skysub.background.config",
    "BackgroundList": "skysub.background.model",
    "FaintLight": "skysub.background.faint_light",
    "read_reference": "skysub.pipeline.zero_points",
    "CalibrateImageConfig": "skysub.pipeline.config",
    "CalibrateImageResult": "skysub.pipeline.calibrate_image",
    "DetectorRecord": "skysub.pipeline.joint.record",
    "record_of": "skysub.pipeline.joint.record",
    "LayeredBackground": "skysub.background.layered",
    "VisitBackground": "skysub.pipeline.visit_background",
    "VisitBackgroundConfig": "skysub.pipeline.visit_background",
    "visit_background": "skysub.pipeline.visit_background",
    "calibrate_image": "skysub.pipeline.calibrate_image",
    "LazyBackground": "skysub.background.blocks",
    "align_chunks": "skysub.background.blocks",
    "IngestMap": "skysub.visit.ingest",
    "MaskPlanes": "skysub.visit.planes",
    "VisitImage": "skysub.visit.image",
    "read_background": "skysub.visit.fits.background",
    "read_visit_header": "skysub.visit.fits.read",
    "read_visit_headers": "skysub.visit.fits.read",
    "read_visit_image": "skysub.visit.fits.read",
    "write_lsst_images": "skysub.visit.fits.lsst_archive",
    "write_background": "skysub.visit.fits.background",
    "write_visit_image": "skysub.visit.fits.write",
    "Dashboard": "skysub.report.dashboard.server",
    "start_dashboard": "skysub.report.dashboard.server",
    "Restored": "skysub.desk.restore",
    "restore": "skysub.desk.restore",
    "SubtractConfig": "skysub.desk.subtract",
    "Subtracted": "skysub.desk.subtract",
    "subtract": "skysub.desk.subtract",
    "Campaign": "skysub.campaign.campaign",
    "open_campaign": "skysub.campaign.campaign",
    "Outcome": "skysub.campaign.run",
    "run_campaign": "skysub.campaign.run",
    "SkyCells": "skysub.pipeline.templates.cells",
    "cells_of": "skysub.pipeline.templates.cells",
    "TemplateVisit": "skysub.pipeline.templates.lesson",
    "TemplatesConfig": "skysub.pipeline.templates.make",
    "make_templates": "skysub.pipeline.templates.make",
    "VisitTemplates": "skysub.pipeline.joint.templates",
    "templates_of_campaign": "skysub.campaign.make_templates",
    "read_templates": "skysub.campaign.template_file",
    "write_templates": "skysub.campaign.template_file",
    "fit_background": "skysub.background.estimate",
    "subtract_background": "skysub.background.estimate",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'skysub' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
