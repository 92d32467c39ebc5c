#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""relacy.py SOURCE_ROOT PROGRAM [CXX]: runs the models of PROGRAM.cc, and mutants of the engine that they must catch.

A mutant is the engine with one order weakened or one step left out. A model that does not see it proves nothing, so a
mutant that passes fails the test. TAP; everything is skipped if relacy (Debian: relacy-dev) or the compiler is missing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAMS = {
    "relacy-models": ["push", "urgent", "stop", "full", "lots", "back", "pause", "cancel", "bias", "rebias", "reuse", "slots", "pin"],
    "relacy-holder": ["serial", "group", "resize", "gate", "withdraw", "helped", "balk", "fill", "haste", "halt", "hold",
                      "widen", "crowd"],
}
USAGE = 2  # exit status of a program that was called wrongly: nothing is caught by that
ITERATIONS = 10000 * (30 if os.environ.get("EQD_LONG") else 1)

# What is wrong: the model that sees it, then (file, from, to)...
MUTANTS = {
    "a push that does not release": ("push",
        ("inbox.h", "exchange_seq_cst(&in->head, n)", "exchange_relaxed(&in->head, n)")),
    "a collect that does not acquire": ("push",
        ("inbox.c", "exchange_acq_rel(&in->head", "exchange_relaxed(&in->head"),
        ("inbox.c", "load_acquire(&n->next)", "load_relaxed(&n->next)")),
    "a leave that does not release": ("push",
        ("inbox.h", "cas_seq_cst(&in->head, &taken", "cas_relaxed(&in->head, &taken")),
    "a walk that takes a missing link for the end": ("push",
        ("inbox.c", "if (older == INBOX_UNCONNECTED) {", "if (false) {")),
    "a leave without the second look": ("urgent",
        ("xhead.h", "if (!inbox_has_new(&h->urgent) && !xhead_is_over(h))", "if (true)")),
    "a leave that does not look for urgent tasks again": ("urgent",
        ("xhead.h", "if (!inbox_has_new(&h->urgent) && ", "if (")),
    "a leave that does not look for the end again": ("stop",
        ("xhead.h", "if (!inbox_has_new(&h->urgent) && !xhead_is_over(h))", "if (!inbox_has_new(&h->urgent))")),
    "a second look that is not in the one order": ("urgent",
        ("inbox.h", "return inbox_is_node(load_seq_cst(&in->head))", "return inbox_is_node(load_relaxed(&in->head))")),
    "an urgent push without a kick": ("urgent",
        ("xhead.h", "return inbox_push(&h->urgent, n) && xhead_kick(h);",
         "inbox_push(&h->urgent, n); return false;")),
    "a stop without a kick": ("stop",
        ("xhead.h", "*ret_token = xhead_kick(h);", "")),
    "a submitter that looks first and charges then": ("stop",
        ("xhead.h", "uint64_t before = fetch_add_seq_cst(&h->charged, charge);",
         "XHeadVerdict v = xhead_look(h, id); uint64_t before = fetch_add_seq_cst(&h->charged, charge);"),
        ("xhead.h", "XHeadVerdict v = xhead_look(h, id);\n        if (v == XHEAD_OK && ", "if (v == XHEAD_OK && ")),
    "a submitter that looks out of the one order": ("stop",
        ("xhead.h", "uint64_t life = load_seq_cst(&h->life) & ~XHEAD_LINGER;",
         "uint64_t life = load_relaxed(&h->life) & ~XHEAD_LINGER;")),
    "charges read before what was given back": ("full",
        ("xhead.h", "uint64_t back = load_seq_cst(&h->done)",
         "uint64_t charged = load_seq_cst(&h->charged), back = load_seq_cst(&h->done)"),
        ("xhead.h", "return load_seq_cst(&h->charged) == back;", "return charged == back;")),
    "a refused submitter that does not kick": ("full",
        ("xhead.h", "(void)fetch_add_seq_cst(&h->refunded, charge);\n        return xhead_is_closed(h) && xhead_kick(h);",
         "(void)fetch_add_seq_cst(&h->refunded, charge);\n        return false;")),
    "an owner of a lot that does not look whether it was asked": ("lots",
        ("xlot.h", "*ret_asked = xlot_is_asked(l);", "*ret_asked = false;")),
    "an owner of a lot without a fence before it takes": ("lots",
        ("xlot.h", "store_relaxed(&l->busy, 1);\n        light_fence();", "store_relaxed(&l->busy, 1);")),
    "an owner of a lot without a fence after it took": ("lots",
        ("xlot.h", "store_release(&l->busy, 0);\n        light_fence();", "store_release(&l->busy, 0);")),
    "an owner of a lot that takes what was asked for": ("lots",
        ("xlot.h", "xlot_state(load_relaxed(&l->state)) == XLOT_GIVEN && load_relaxed(&l->head) == h &&",
         "xlot_state(load_relaxed(&l->state)) != XLOT_NONE && load_relaxed(&l->head) == h &&")),
    "a lot that is got back while its owner is at it": ("lots",
        ("xlot.h", "if (load_acquire(&l->busy) != 0)", "if (false)")),
    "a lot that is got back without having acquired": ("lots",
        ("xlot.h", "if (load_acquire(&l->busy) != 0)", "if (load_relaxed(&l->busy) != 0)"),
        ("xlot.h", "store_release(&l->busy, 0);", "store_relaxed(&l->busy, 0);")),
    "a lot that is asked for without a fence": ("lots",
        ("relacy-atomics.h", "#define heavy_fence() rl::atomic_thread_fence(rl::mo_seq_cst, $)", "#define heavy_fence() ((void)0)")),
    "a grant of a lot without the second look": ("lots",
        ("relacy-models.cc", "if (xhead_is_closed(&q.head))\n                                give();", "")),
    "a lot that both give back": ("lots",
        ("xlot.h", "return cas_acq_rel(&l->state, &state, state - XLOT_ASKED + XLOT_NONE);", "return true;")),
    "a canceler that puts into a lot what was asked for": ("back",
        ("xlot.h", "xlot_state(load_relaxed(&l->state)) == XLOT_GIVEN && load_relaxed(&l->head) == h;",
         "xlot_state(load_relaxed(&l->state)) != XLOT_NONE && load_relaxed(&l->head) == h;")),
    "a canceler that puts into a lot without a fence before it": ("back",
        ("xlot.h", "light_fence();\n        uint64_t back", "uint64_t back")),
    "a canceler that puts into a lot without a fence after it": ("back",
        ("xlot.h", "light_fence();\n        *ret_asked = xlot_is_asked(l);\n        return !good",
         "*ret_asked = xlot_is_asked(l);\n        return !good")),
    "a canceler that puts into a lot and does not say when": ("back",
        ("xlot.h", "bool full = xcharge_tasks(back) >= XLOT_TASKS;\n        preempt_here();\n        if (good)",
         "bool full = xcharge_tasks(back) >= XLOT_TASKS;\n        store_release(&l->busy, 0);\n        if (good)")),
    "a canceler that does not look whether its lot was asked for": ("back",
        ("xlot.h", "*ret_asked = xlot_is_asked(l);\n        return !good", "*ret_asked = false;\n        return !good")),
    "a full lot that keeps what is given back": ("back",
        ("xlot.h", "full ? 0 : back)", "back)")),
    "a full lot of which nothing is given back": ("back",
        ("xlot.h", "full ? back : 0;", "0;")),
    "a lot that is got back without what was canceled": ("back",
        ("xlot.h", "*ret_rest = xlot_rest(l);\n        return", "*ret_rest = xlot_rest(l), ret_rest->back = 0;\n        return")),
    "an owner that gives a lot back without what was canceled": ("back",
        ("xlot.h", "*ret_rest = xlot_rest(l);\n                if", "*ret_rest = xlot_rest(l), ret_rest->back = 0;\n                if")),
    "a short cancel that does not know of the fence that another one had": ("bias",
        ("xbias.h", "return xbias_state(load_acquire(&b->state)) == XBIAS_OFF;",
         "return xbias_state(load_relaxed(&b->state)) == XBIAS_OFF;")),
    "a resume that leaves the token at the gate": ("pause",
        ("xhead.h", "if (after == XHEAD_PARKED) {\n                        *ret_token = true;",
         "if (after == XHEAD_PARKED) {")),
    "a park that does not look again": ("pause",
        ("xhead.h", "if (cas_acq_rel(&h->gate, &gate, gate | XHEAD_PARKED))",
         "if ((store_relaxed(&h->gate, gate | XHEAD_PARKED), true))")),
    "a cancel by load and store": ("cancel",
        ("xtask.h", "if (cas_acq_rel(&ref.task->word, &word, xtask_word(ref.ticket, next)))",
         "if ((store_release(&ref.task->word, xtask_word(ref.ticket, next)), true))")),
    "a holder that releases without having acquired": ("cancel",
        ("relacy-atomics.h", "rl::mo_acq_rel, rl::mo_acquire)", "rl::mo_acq_rel, rl::mo_relaxed)"),
        ("relacy-atomics.h", "rl::mo_acquire, rl::mo_acquire)", "rl::mo_acquire, rl::mo_relaxed)")),
    "a holder that releases what is being told": ("cancel",
        ("xtask.h", "*ret_release = !cas_acq_rel(&t->word, &word, queued | XTASK_ORPHAN);", "*ret_release = true;")),
    "a cancel that does not look at the ticket": ("reuse",
        ("xtask.h", "if (word != queued)\n", "if ((word & XTASK_STATE_MASK) != XTASK_QUEUED)\n"),
        ("xtask.h", "return word == queued ? 0 :", "return (word & XTASK_STATE_MASK) == XTASK_QUEUED ? 0 :")),
    "a look at a task without the second look": ("reuse",
        ("xtask.h", "return word == queued ? 0 :", "return true ? 0 :")),
    "a look at a task that does not acquire": ("reuse",
        ("xtask.h", "*ret_queue = load_acquire(&ref.task->queue);", "*ret_queue = load_relaxed(&ref.task->queue);")),
    "a task that is another queue's before it says so": ("reuse",
        ("xtask.h", "store_release(&t->queue, q);", "store_relaxed(&t->queue, q);")),
    "a biased claim without a fence": ("bias",
        ("xbias.h", "light_fence();", "")),
    "an end of biased claims without a fence": ("bias",
        ("xbias.h", "heavy_fence();", "")),
    "a second canceler without a fence of its own": ("bias",
        ("xbias.h", "if (xbias_state(state) != XBIAS_ENDING)\n                return;", "if (!mine)\n                return;"),
        ("xbias.h", "uint64_t state = load_acquire(&b->state);", "bool mine = false;\n        uint64_t state = load_acquire(&b->state);"),
        ("xbias.h", "state += XBIAS_ENDING - XBIAS_ON;", "mine = true, state += XBIAS_ENDING - XBIAS_ON;")),
    "a canceler that does not know of the fence that another one had": ("bias",
        ("xbias.h", "uint64_t state = load_acquire(&b->state);", "uint64_t state = load_relaxed(&b->state);")),
    "a cancel of what the holder has in its hand": ("bias",
        ("xbias.h", "if (load_acquire(&b->hand) == xtask_word(ref.ticket, XTASK_QUEUED))", "if (false)")),
    "a cancel that does not settle what is in the hand": ("bias",
        ("xbias.h", "return xtask_make_run(ref);", "return 1;")),
    "a holder that does not take what a canceler has settled": ("bias",
        ("xtask.h", " || word == (queued | XTASK_RUNNING))", ")")),
    "a holder that claims without a look at the era": ("bias",
        ("xbias.h", "if (load_relaxed(&b->state) != era)", "if (false)")),
    "claims that are biased before the next collect": ("rebias",
        ("relacy-models.cc", "era = XBIAS_NO_ERA;", "era = begun;")),
    "a collect that does not release": ("rebias",
        ("inbox.c", "exchange_acq_rel(&in->head", "exchange_acquire(&in->head")),
    "a look-up without the second look": ("slots",
        ("slots.h", "return load_relaxed(&s->id) == (id | SLOT_PUBLISHED) ?", "return true ?")),
    "a look-up that does not acquire": ("slots",
        ("slots.h", "load_acquire(&s->id) != ", "load_relaxed(&s->id) != "),
        ("slots.h", "uintptr_t thing = load_acquire(&s->thing);", "uintptr_t thing = load_relaxed(&s->thing);")),
    "an unpin that frees without asking": ("pin",
        ("xhead.h", "== (XHEAD_DYING | 1) && xhead_may_free(h);", "== (XHEAD_DYING | 1);")),
    "a pin that does not look who is there": ("pin",
        ("xhead.h", "if ((load_seq_cst(&h->life) & XHEAD_ID_MASK) == id)\n                return true;\n        *ret_free",
         "return true;\n        *ret_free")),
    "a stop that does not schedule the queue": ("serial",
        ("xqueue.c", "if (token)\n                xqueue_schedule(q);\n        else\n                xholder_call(q, true);\n        return 0;",
         "return 0;")),
    "an urgent submit whose token nobody gets": ("serial",
        ("xqueue.c", "        else\n                xqueue_schedule(q);\n        return 0;", "        return 0;")),
    "a holder that leaves, and has the token still": ("serial",
        ("xholder.c", "return xhead_leave(&q->head) ? TOKEN_GONE : TOKEN_KEPT;\n}\n\nstatic Outcome drain_serial",
         "(void)xhead_leave(&q->head); return TOKEN_GONE;\n}\n\nstatic Outcome drain_serial")),
    "a member that leaves the token of its group behind": ("group",
        ("xholder.c", "bool token = q->token_held;", "bool token = false;")),
    "a last member that does not look for the end": ("group",
        ("xholder.c", "(puts_back || (active == 0 && xhead_is_closed(&q->head)))", "puts_back")),
    "a member that claims without the lock": ("group",
        ("xholder.c", "        if (b->parallel)\n                pthread_mutex_lock(&b->queue->group_lock);", ""),
        ("xholder.c", "        if (b->parallel)\n                pthread_mutex_unlock(&b->queue->group_lock);", "")),
    "a holder that ends a queue with members": ("group",
        ("xholder.c", "return out == TOKEN_KEPT && alone ? settle(q)", "return out == TOKEN_KEPT || alone ? settle(q)"),
        ("xholder.c", "        else if (active > 0 && xhead_is_closed(&q->head))\n                q->token_held = true;", "")),
    "room that is made and not used": ("resize",
        ("xqueue.c", "        pthread_mutex_unlock(&q->group_lock);\n        if (token)\n                xqueue_schedule(q);\n        else",
         "        pthread_mutex_unlock(&q->group_lock);\n        if (!token)")),
    "a resume that does not schedule the queue": ("gate",
        ("xqueue.c", "int r = xhead_resume(&q->head, &token) ? 0 : -EALREADY;\n        if (token)",
         "int r = xhead_resume(&q->head, &token) ? 0 : -EALREADY;\n        if (false)")),
    "a cancel that does not schedule the queue": ("withdraw",
        ("xqueue.c", "if (charge != 0 && xhead_canceled(&q->head, charge))", "if (charge != 0 && xhead_canceled(&q->head, charge) && false)")),
    "a canceled task that is not released": ("withdraw",
        ("xholder.c", "        if (to_release)\n                xqueue_release(q, t);", "")),
    "a reserve that joins and takes the token along": ("helped",
        ("xholder.c", "return x->has_joined ? stays : out != TOKEN_GONE;", "return !x->has_joined && out != TOKEN_GONE;")),
    "a reserve that leaves the token of the group behind": ("helped",
        ("xholder.c", "if (out != TOKEN_GONE)\n                workers_put(", "if (false)\n                workers_put(")),
    "a member that tells nobody of what it puts back": ("balk",
        ("xholder.c", "(puts_back || (active == 0 && xhead_is_closed(&q->head)))", "(active == 0 && xhead_is_closed(&q->head))")),
    "a holder that lingers until the lane has new tasks, and not on those that it counts": ("fill",
        ("xholder.c", "(uint32_t)gone + q->batch_max", "(uint32_t)load_seq_cst(&h->charged) + q->batch_max")),
    "a submit that does not call a holder that lingers": ("fill",
        ("xqueue.c", "xholder_call(q, urgent);", "urgent ? xholder_call(q, true) : (void)0;")),
    "a holder that looks first and says then that it lingers": ("haste",
        ("xholder.c", "(void)fetch_or_seq_cst(&h->life, XHEAD_LINGER);", ""),
        ("xholder.c", "futex_wait(&q->lingered, seen,", "(void)fetch_or_seq_cst(&h->life, XHEAD_LINGER);\n                futex_wait(&q->lingered, seen,"),
        ("xholder.c", "now = now_usec(), seen = load_seq_cst(&q->lingered))", "now = now_usec(), seen = load_seq_cst(&q->lingered)) {"),
        ("xholder.c", "b->linger_until_usec - now);\n", "b->linger_until_usec - now); }\n")),
    "a holder that counts calls after it has looked": ("haste",
        ("xholder.c", "futex_wait(&q->lingered, seen,", "futex_wait(&q->lingered, load_seq_cst(&q->lingered),")),
    "a holder that lingers past an urgent task that is on its way": ("haste",
        ("xholder.c", "linger_goal_is_reached(q) || q->urgent.walk ||", "linger_goal_is_reached(q) ||")),
    "a stop that does not call a holder that lingers": ("halt",
        ("xqueue.c", "        else\n                xholder_call(q, true);\n        return 0;", "        return 0;")),
    "a pause out of the one order": ("hold",
        ("xhead.h", "while (!cas_seq_cst(&h->gate, &gate, gate + 1));", "while (!cas_relaxed(&h->gate, &gate, gate + 1));")),
    "another max_active out of the one order": ("widen",
        ("xqueue.c", "store_seq_cst(&q->max_active, max_active);", "store_relaxed(&q->max_active, max_active);")),
    "a refusal that does not call a holder that lingers": ("crowd",
        ("xqueue.c", "                xholder_call(q, true);\n        }\n        if (token)", "        }\n        if (token)")),
    "a holder that does not look for tasks after a refusal": ("crowd",
        ("xholder.c", "b->n_refused = n_refused;\n                return true;", "b->n_refused = n_refused;")),
}


def program_of(model):
    return next(name for name, models in PROGRAMS.items() if model in models)


def build(root, cxx, folder, name, edits, *options):
    """Compiles that program of models against the engine with these edits. Returns its path."""
    for part in ("engine", "base"):
        shutil.copytree(root / "daemon" / part, folder / "daemon" / part)
    shutil.copytree(root / "tests/model", folder / "model")
    for file, old, new in edits:
        path = folder / ("model" if file.startswith("relacy") else "daemon/engine") / file
        text = path.read_text()
        if text.count(old) == 0:
            raise ValueError(f"{file} has no such text any more: {old}")
        path.write_text(text.replace(old, new))
    program = folder / name
    subprocess.run([cxx, "-std=c++17", "-O0", "-w", "-fpermissive", *options, f"-I{folder}/model", f"-I{folder}/daemon",
                    str(folder / "model" / (name + ".cc")), "-o", str(program)], check=True, capture_output=True, text=True)
    return program


def survives(program, model, seconds=None):
    """Relacy reports a fault and exits with 1; a mutant, which gets so long, may as well crash or never end."""
    try:
        status = subprocess.run([program, model, str(ITERATIONS)], capture_output=True,
                                timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return False
    if status == USAGE:
        raise ValueError(f"{program.name} has no model {model}")
    return status == 0


def try_mutant(root, cxx, row):
    what, (model, *edits) = row
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = build(root, cxx, Path(folder), program_of(model), edits, f"-DRELACY_ONLY={model.capitalize()}")
            return what, model, not survives(program, "only", 30 * (30 if os.environ.get("EQD_LONG") else 1))
        except (ValueError, subprocess.CalledProcessError) as e:
            return f"{what}: {getattr(e, 'stderr', e)}", model, False


def main():
    root, name, cxx = Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "g++"
    if not shutil.which(cxx) or not Path("/usr/include/relacy/relacy.hpp").exists():
        print("1..0 # SKIP needs g++ and relacy-dev")
        return 0
    results, mutants = [], [row for row in MUTANTS.items() if program_of(row[1][0]) == name]
    with tempfile.TemporaryDirectory() as folder:
        program = build(root, cxx, Path(folder), name, [])
        for model in PROGRAMS[name]:
            results.append((f"model {model} holds", survives(program, model)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for what, model, caught in pool.map(lambda row: try_mutant(root, cxx, row), mutants):
            results.append((f"model {model} catches {what}", caught))
    print(f"1..{len(results)}")
    for n, (claim, good) in enumerate(results, 1):
        print(f"{'ok' if good else 'not ok'} {n} - {' '.join(claim.split())}")
    return 0 if all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main())
