"""Wrong answers to the lab of chapter 8, each with what it must be told."""

from irlbook.exercises.model import Edit, WrongAnswer

FEWER = Edit("rounds = 24", "rounds = 4")  # what never learns need not be watched for long

WRONG_ANSWERS: dict[str, dict[str, WrongAnswer]] = {
    "08L.1": {
        "labels swapped": (
            (
                Edit("(-expert_scores)", "(expert_scores)"),
                Edit("(policy_scores)", "(-policy_scores)"),
            ),
            "labels are swapped",
        ),
        "sign": (Edit("return real + made", "return -real - made"), "sign is turned"),
        "one mean": (
            Edit(
                "return real + made",
                "return nn.functional.softplus(torch.cat([-expert_scores, policy_scores])).mean()",
            ),
            "larger batch counts more",
        ),
        "half": (Edit("return real + made", "return (real + made) / 2"), "half of it"),
        "sums": (
            (
                Edit("(-expert_scores).mean()", "(-expert_scores).sum()"),
                Edit("(policy_scores).mean()", "(policy_scores).sum()"),
            ),
            "sums, not means",
        ),
        "no policy": (Edit("return real + made", "return real"), "policy's pairs are missing"),
        "no expert": (Edit("return real + made", "return made"), "expert's pairs are missing"),
        "overflow": (
            Edit(
                "return real + made",
                "return -torch.log(torch.sigmoid(expert_scores)).mean() "
                "- torch.log(1 - torch.sigmoid(policy_scores)).mean()",
            ),
            "finite",
        ),
        "no gradient": (
            Edit("return real + made", "return (real + made).detach()"),
            "gradients flow",
        ),
    },
    "08L.2": {
        "log(1 - D)": (Edit("return ", "return -"), "flee the expert"),
        "log D": (
            Edit("softplus(scores.detach())", "logsigmoid(scores.detach())"),
            "each step costs",
        ),
        "the other D": (Edit("scores.detach()", "-scores.detach()"), "looking like oneself"),
        "D": (
            Edit("nn.functional.softplus(scores.detach())", "torch.sigmoid(scores.detach())"),
            "D itself",
        ),
        "score": (Edit("nn.functional.softplus(scores.detach())", "scores.detach()"), "the score"),
        "gradient": (Edit("scores.detach()", "scores"), "no gradient"),
        "overflow": (
            Edit(
                "nn.functional.softplus(scores.detach())",
                "-torch.log(1 - torch.sigmoid(scores.detach()))",
            ),
            "finite",
        ),
    },
    "08L.3": {
        "no bootstrap": (
            Edit("discount * values[t + 1]", "discount * values[t + 1] * (t + 1 < len(rewards))"),
            "end of the world",
        ),
        "no lambda": (Edit("discount * lam *", "discount *"), "lambda is missing"),
        "no discount": (
            (Edit("discount * values", "values"), Edit("discount * lam", "lam")),
            "discount is missing",
        ),
        "no sum": (Edit("discount * lam * after", "0.0 * after"), "only the TD errors"),
        "targets": (Edit("= after\n", "= after + values[t]\n"), "targets of the critic"),
        "same step": (Edit("values[t + 1]", "values[t]"), "of the same step"),
        "forwards": (Edit("reversed(range(len(rewards)))", "range(len(rewards))"), "forwards"),
    },
    "08L.4": {
        "labels swapped": (
            (
                FEWER,
                Edit(
                    "loss = discriminator_loss(judge(expert), judge(some))",
                    "loss = discriminator_loss(judge(some), judge(expert))",
                ),
            ),
            "imitates",
        ),
        "flees the expert": (
            (FEWER, Edit("imitation_reward(scores)", "-imitation_reward(scores)")),
            "imitates",
        ),
        "blind": ((FEWER, Edit("range(8)", "range(0)")), "imitates"),
        "D climbs": (
            (FEWER, Edit("            loss.backward()", "            (-loss).backward()")),
            "imitates|finite",
        ),
        "each pair is paid for another": (
            (
                FEWER,
                Edit(
                    "imitation_reward(scores)",
                    "imitation_reward(scores[torch.randperm(len(scores))])",
                ),
            ),
            "imitates",
        ),
        "the policy does not learn": (
            (FEWER, Edit("        improve(", "        0 and improve(")),
            "imitates",
        ),
        "untrained": (Edit("rounds = 24", "rounds = 0"), "imitates"),
        "the critic": (Edit("agent.actor.state_dict()", "agent.critic.state_dict()"), "shape"),
        "both networks": (
            Edit("agent.actor.state_dict()", "agent.state_dict()"),
            "weights of the actor",
        ),
        "borrowed": (
            "def train(seen, done, seed, history=None):\n"
            "    from irlbook.imitation.gail import gail\n"
            "    return gail(seen, done, seed=seed).agent.actor.state_dict()",
            "irlbook.imitation",
        ),
    },
    "08L.5": {
        "no label": (Edit(', ylabel="loss of D, nats"', ""), "y axis"),
        "one panel": (
            "def draw(loss, accuracy, standing):\n"
            "    import matplotlib.pyplot as plt\n"
            "    fig, ax = plt.subplots()\n"
            "    ax.plot(loss)\n"
            "    return fig",
            "2 panels",
        ),
        "from zero": (Edit("np.arange(1, len(loss) + 1)", "np.arange(len(loss))"), "left panel"),
        "accuracy for loss": (Edit("rounds, loss", "rounds, accuracy"), "left panel"),
        "no level": (Edit("left.axhline(2 * np.log(2)", "left.axhline(1.0"), "horizontal line"),
        "half the level": (Edit("2 * np.log(2)", "np.log(2)"), "horizontal line"),
        "loss on both": (Edit("rounds, standing", "rounds, loss"), "right panel"),
        "empty words": (Edit("upright steps of 200", "y"), "labels say"),
        "nothing returned": (Edit("return fig", "return None"), "Matplotlib figure"),
    },
}
