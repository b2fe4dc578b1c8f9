"""A local Braintrust: a real HTTP server on loopback, for the demo, rehearsals and tests.

It imports nothing from the rest of bt_migrate, so that it can judge it. Where the real service is not documented
it takes the reading that is harder on a client:
- the ids of users belong to one organization, also where an e-mail address is in two;
- ids of objects that do not exist in the caller's organization are refused with 400 wherever an object names
  another one; asking for an unknown object by its id is refused with 403, as for one of another organization;
- PATCH ignores nulls at any depth, and a built-in role can be neither changed nor made again;
- the same row id twice in one insert is refused; pagination keys are unique inside one object only;
- a row keeps its pagination key for as long as it lives, and a comment does not change its transaction;
- a query without a LIMIT answers 1000 rows; without an order, the newest come first;
- a dataset snapshot has to name a transaction of its dataset; a project takes along what it holds when deleted.
Not here: inviting members, making service tokens and API keys, invoking functions, code bundles, /btql/async,
parquet, playgrounds, the proxy. Numbers are read as Python reads them: 1e2 comes back as 100.0, -0 as 0.
"""
