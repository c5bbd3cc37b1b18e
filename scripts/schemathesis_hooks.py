"""What Schemathesis cannot send by itself."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A list of users is text, a user a line: what is generated goes out as it is."""
    return value if isinstance(value, bytes) else str(value).encode()
