"""The life of a granted job, from its provisions to its last report (DESIGN §7.3, §7.4, §8).

* `life` – the whole story · `work` – in the sandbox · `provisions` – sources, inputs, artifacts
* `jails` – its sandbox's specification · `lease`, `keeper` – how long it may go on · `metering` – what it used
* `ending` – how it ended · `farewell` – what is said then · `recovery` – the jobs of the life before this one
"""
