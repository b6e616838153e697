"""The manifests keep our rules, and each rule notices when they do not."""

import unittest

import changes_front
import changes_mesh
import changes_pods
import changes_public
import changes_pull
import changes_replicas
import manifests
import rules_leaving
import rules_mesh
import rules_names
import rules_network
import rules_pods
import rules_public
import rules_pull
import rules_replicas
import rules_streams

MODULES = (rules_leaving, rules_streams, rules_pods, rules_replicas, rules_network, rules_names,
           rules_public, rules_pull, rules_mesh)
RULES = [rule for module in MODULES for rule in module.RULES]
CHANGES = (changes_pods.CHANGES + changes_replicas.CHANGES + changes_front.CHANGES
           + changes_public.CHANGES + changes_pull.CHANGES + changes_mesh.CHANGES)


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
class Rules(unittest.TestCase):
    def test_every_variant_keeps_every_rule(self):
        for name in manifests.ALL:
            docs = manifests.variant(name)
            for rule in RULES:
                with self.subTest(variant=name, rule=rule.__name__):
                    self.assertEqual(list(rule(docs)), [])

    def test_every_rule_can_fail(self):
        for rule, name, change, said in CHANGES:
            docs = manifests.variant(name)
            change(docs)
            problems = list(rule(docs))
            with self.subTest(rule=rule.__name__, variant=name, said=said):
                self.assertTrue(any(said in problem for problem in problems), problems)

    def test_no_rule_is_left_out(self):
        self.assertEqual({rule.__name__ for rule in RULES},
                         {rule.__name__ for rule, *_ in CHANGES})


if __name__ == "__main__":
    unittest.main()
