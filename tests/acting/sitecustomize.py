"""Makes the worker processes of a test know the acting stage."""

import qaq.job

qaq.job.MODULES["acting"] = "acting"
