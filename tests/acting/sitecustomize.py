"""Makes the worker processes of a test know the acting stage."""

import qaq.store.jobs

qaq.store.jobs.MODULES["acting"] = "acting"
