"""The page that lies beside a release, for people who never heard of skysub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["readme"]

_KINDS = {
    "image": "release.zarr/{name}: image, mask, variance (visit, detector, y, x); tables/{name}_headers",
    "background": "release.zarr/{name}: coefficients, covariance, statistics (visit, detector, layer, ...)",
    "grid": "release.zarr/{name}/{name}",
    "table": "tables/{name}",
    "object": "tables/{name}, as JSON in the column value",
}

_PAGE = """# Release {name}

{visits} visits, {detectors} detectors, made by skysub {skysub} and published {created}.
Units of work in it: {done} done{absent}.

| product | step | where |
| --- | --- | --- |
{rows}

```python
{example}```

Where `done` is false nothing was made, and arrays hold NaN (masks and whole numbers: 0). Detectors smaller
than the largest are filled up in the same way: `ny` and `nx` are their own shapes. Bits of masks are named by
`flag_masks` and `flag_meanings`; `wcs` has the cards of a FITS header.

`provenance/products.parquet` has a row for each product of each visit and detector: step, run, key, versions,
input file with its checksum, and the files here that hold it. Settings of each run are in `provenance/runs`.
`figures` has the summary statistics of each step.

`sha256sum -c SHA256SUMS` compares all files with their checksums.
"""


def readme(record: Mapping[str, Any]) -> str:
    """Return the text of ``README.md``: what there is, how to open it, how to check it."""
    products, counts = record["products"], record["counts"]
    missing = ", ".join(f"{count} {state}" for state, count in counts.items() if state != "done" and count)
    group = _last(products, "image") or _last(products, "background") or _last(products, "grid")
    opened = (
        f'images = xarray.open_zarr("release.zarr", group="{group}")\n'
        "images.sel(visit=images.visit[0], detector=images.detector[0])\n"
        if group
        else ""
    )
    return _PAGE.format(
        **{name: record[name] for name in ("name", "visits", "detectors", "skysub", "created")},
        done=counts.get("done", 0),
        absent=f"; not in it: {missing} (provenance/absent.parquet says why)" if missing else "",
        rows="\n".join(
            f"| {name} | {each['step']} | {_KINDS[each['kind']].format(name=name)} |"
            for name, each in products.items()
        ),
        example=(
            f"import pandas\nimport xarray\n\n{opened}"
            f'pandas.read_parquet("tables/{_last(products, "table") or "visits.parquet"}")\n'
            'pandas.read_parquet("provenance/products.parquet")\n'
        ),
    )


def _last(products: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    """Last product of a kind; empty where there is none."""
    names = [name for name, each in products.items() if each["kind"] == kind]
    return names[-1] if names else ""
