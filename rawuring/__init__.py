"""io_uring for Python in pure ctypes."""
