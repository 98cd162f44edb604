"""One image on somebody's desk: its sky subtracted, looked at, and put back."""
