"""Files made by hand, card by card, so that they can claim what no library would write."""


def header(**cards):
    """Header of cards whose values are given as FITS text."""
    text = "".join(f"{keyword:8}= {value!s:>20}".ljust(80) for keyword, value in cards.items()) + "END"
    return text.ljust(-(-len(text) // 2880) * 2880).encode("ascii")


def image_hdu(image, **cards):
    """Primary HDU of a float32 image."""
    ny, nx = image.shape
    head = header(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=nx, NAXIS2=ny, **cards)
    data = image.astype(">f4").tobytes()
    return head + data.ljust(-(-len(data) // 2880) * 2880, b"\0")
