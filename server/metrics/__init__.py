"""What an operator sees of a running server, in the terms of Prometheus; served where --metrics names an address.

matchcut_requests_total             requests that ended; `code` is the name of their gRPC status
matchcut_request_seconds            histogram of the time of a request, to the end of its stream where it is one
matchcut_requests_under_way         requests that have begun and not ended; streams among them
matchcut_stage_seconds              histogram of the time that a reply took in a stage; see StageTimes in common.proto
matchcut_places                     how many requests of a kind are worked on at once at most
matchcut_places_taken               how many are now
matchcut_requests_refused_total     requests that were refused for want of a place
matchcut_live_frames_dropped_total  frames of live queries that came faster than they could be used
matchcut_rank_rows_total            rows that rankings scanned
matchcut_rank_survivors_total       pairs (row, segment asked with) that the scan could not rule out; where their share
                                    of the rows rises, the vectors have changed since the way of coding them was chosen
matchcut_rank_pieces_total          pieces of 64 bytes of codes that were read of survivors
matchcut_rank_rescored_total        pairs that were scored exactly
matchcut_rank_seconds               histogram of the time of a ranking
matchcut_batch_rows                 histogram of the rows in a run of a model, of all requests together
matchcut_batch_seconds              histogram of the time of such a run
matchcut_batch_wasted_total         runs at whose end nobody waited for them any longer
matchcut_batch_waiting_rows         rows that wait for a run
matchcut_batch_wait_seconds         histogram of how long a request waited for its run to begin
matchcut_batch_dropped_total        requests that were given up before they were computed
matchcut_model_ready                1 for each version of a model that can be used, 0 for those that cannot
matchcut_events                     events in the log of users' events
matchcut_event_users                users in it; a number below --anonymity is 0, others are rounded down
matchcut_exposures                  lists in it that were shown to users
matchcut_event_log_bytes            size of that log
matchcut_user_states                users' states in memory, rounded down as well
matchcut_user_state_bytes           bytes that they take, about
matchcut_user_states_evicted_total  states that had to leave memory
matchcut_user_states_replayed_total states that were made anew from the log: after a late event, another model, a start
matchcut_user_lists_total           lists that were made for users
matchcut_user_lists_cold_total      those of them for users of whom nothing was known
matchcut_session_model              1, with the labels `model` and `version`: what users' lists are made with
matchcut_session_model_fault        1: the session model that is deployed cannot be served; the one before it is
matchcut_items_ready                1: all items of the catalogue can be recommended to users
matchcut_catalog_segments           segments in the catalogue, all tenants together
matchcut_catalog_coded_segments     those of them that are coded for the scan
matchcut_catalog_items              items in the catalogue, all tenants together
matchcut_catalog_staged_items       those of them that have vectors of the next encoder aside
matchcut_scan_epoch_age_rows        rows that were coded in a way that had been chosen before they came
matchcut_start_time_seconds         when the server began, in seconds since 1970
matchcut_info                       1; its label `version` is matchcut's

Those of requests and stages have the label `rpc`, for example "matchcut.v1.Recommender/Recommend"; health checks and
reflection are not among them. Those of places and refusals have the label `kind`: "media" or "quick". Those of rank
have the label `variant`, what ranked, for example "cpu-avx2", "cpu-numpy" or "cuda-int8". Those of batch have the label
`model`, the name of the encoder or model that runs; dropped ones also the `reason`: "OVERLOADED", "DEADLINE_TOO_SHORT"
(the answer would have come too late), "DEADLINE_EXCEEDED" or "CANCELLED". The address speaks plain HTTP and asks for no
token: it tells how much there is and how busy the server is, but nothing of what.
"""

from __future__ import annotations

from matchcut.server.metrics.batches import BatchMetrics
from matchcut.server.metrics.requests import RequestMetrics
from matchcut.server.metrics.served import Metrics

__all__ = ["BatchMetrics", "Metrics", "RequestMetrics"]
