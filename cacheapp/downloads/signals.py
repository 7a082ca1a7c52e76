"""The signal `download_ended`, sent when a job has succeeded, failed or been cancelled.

    @receiver(download_ended)
    def on_end(sender, event_id, job_id, state, data, **kwargs): ...

`sender` is the model `DownloadJob`; `event_id` (UUID) identifies this end of the job, `state` is
"succeeded", "failed" or "cancelled", and `data` has the counts as of the end
(`docs/howto/downloads.md`). The signal is sent after the end is committed, in a thread
`downloads-notifier` of any process that runs downloads, which need not be the one that ran the job;
for a job of a terminal, usually in that command's main thread.

It is sent at least once: again, with the same `event_id`, if the process was killed while it sent
it. An exception in a receiver is logged, and the signal is not sent again for it. Connect receivers
in `AppConfig.ready`: no event is recorded for a job that ends in a process without receivers.
"""

from django.dispatch import Signal

download_ended = Signal()
