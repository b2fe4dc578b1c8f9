"""A local Braintrust: a real HTTP server on loopback, for the demo, rehearsals and tests.

It imports nothing from the rest of bt_migrate, so that both cannot share a mistake. It behaves like
the hosted service (see data/behaviour.py). Where nothing was recorded or documented, it behaves in
the way that is harder for a client:
- user ids belong to one organization, even where an e-mail address is in two;
- an id in a body that names no object of the caller's organization is refused;
- PATCH ignores nulls at any depth; a built-in role can be neither changed nor created again;
- the same row id twice in one insert is refused;
- pagination keys are unique inside one object only;
- a row keeps its pagination key, and a comment does not change its transaction;
- a query without LIMIT answers 1000 rows; without a sort, the newest come first;
- a dataset snapshot must name a transaction of its dataset;
- deleting a project deletes what it holds.
Not implemented: removing members, creating service tokens and API keys, invoking functions,
/btql/async, parquet, playgrounds, the proxy. Numbers are read as Python reads them: 1e2 is read
back as 100.0, -0 as 0.
"""
