"""Campaigns to make releases of, and a server that speaks S3."""

from tests.campaign.conftest import raw, start, steps
from tests.campaign.store.conftest import s3_server, server

__all__ = ["raw", "s3_server", "server", "start", "steps"]
