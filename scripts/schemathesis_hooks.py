"""What Schemathesis cannot send by itself."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A list of users is text, a user a line: what is generated goes out as it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The body of a call along a link. Generators of clients do not read it under its own name."""
    for calls in raw_schema["paths"].values():
        for call in calls.values():
            for response in call["responses"].values():
                for link in response.get("links", {}).values():
                    if "x-request-body" in link:
                        link["requestBody"] = link.pop("x-request-body")
