"""Whether what stands in a space follows from its log."""

from actors.footing import Footing
from adapters.cli.replay_check import states_that_differ
from eventlog.entries import Entered, Exited, TraitComputed
from tests.privacy.room import Room, folded_anew


async def differences(here: Room) -> list[str]:
    """Compare what stands with a fold of the log anew."""
    await here.space.settle()
    footing = Footing(here.log.read_facts())
    last_seq = here.log.last_seq
    found: list[str] = []
    async with folded_anew(here) as anew:
        if anew.identity.digest() != here.space.identity.digest():
            found.append("identities differ")
        kinds = (Entered, Exited, TraitComputed)
        stood = [fact for commit in here.log.read() for fact in commit.facts if isinstance(fact, kinds)]
        made = [fact for commit in anew.log.read(last_seq) for fact in commit.facts if isinstance(fact, kinds)]
        stood = [fact for fact in stood if footing.follows(fact)]
        made = [fact for fact in made if footing.follows(fact) and fact.cause_seq <= last_seq]
        for old, new in zip(stood, made, strict=False):
            if old != new:
                found.append(f"{old} was {new}")
                break
        if len(stood) != len(made):
            found.append(f"{len(stood)} effects stand, {len(made)} follow")
        for view in here.space.definitions("audience"):
            key, number = view.definition.key, view.definition.number
            if not footing.is_computable(number):
                continue
            ours, theirs = dict(await here.space.members(key)), dict(await anew.members(key))
            if set(ours) != set(theirs):
                found.append(f"{key}: {sorted(ours)} stand, {sorted(theirs)} follow")
            dated = {one for one in ours if footing.is_dated(number, ours[one], one)}
            found += [
                f"{key}: {one} since {ours[one]}, {theirs.get(one)}" for one in dated if ours[one] != theirs.get(one)
            ]
        await here.space.close()
        await anew.close()
        found += states_that_differ(here.space, anew, footing)
    return found
